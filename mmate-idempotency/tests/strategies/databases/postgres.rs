//! A schema in the PostgreSQL of the run.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use mmate_core::{Subscription, SubscriptionBuilder};
use mmate_idempotency::store::ManualClock;
use mmate_idempotency::{PostgresStore, Store, Transactional, Tx};
use mmate_test_support::{postgres_url, unique};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Postgres};

use super::{By, Database, Handling, inserting};
use crate::effects::Effect;

pub(crate) struct OnPostgres {
    schema: String,
}

impl OnPostgres {
    pub(crate) fn new() -> Self {
        Self { schema: unique("house") }
    }

    fn url(&self) -> String {
        format!("{}?options[search_path]={}", postgres_url(), self.schema)
    }

    /// A pool as a user makes one.
    async fn pool(&self, connections: u32) -> PgPool {
        let options = PgPoolOptions::new().max_connections(connections);
        options.connect(&self.url()).await.unwrap()
    }
}

#[async_trait]
impl Database for OnPostgres {
    async fn prepare(&self) {
        let schema = &self.schema;
        let sql = format!(
            "CREATE SCHEMA {schema}; CREATE TABLE {schema}.effects (id text, attempt bigint)"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool(1).await).await.unwrap();
    }

    async fn store(&self, clock: Option<&ManualClock>) -> Arc<dyn Store> {
        let store = PostgresStore::connect(&self.url()).await.unwrap();
        Arc::new(match clock {
            Some(clock) => store.clock(clock.clone()),
            None => store,
        })
    }

    async fn store_on_pool(&self, connections: u32) -> Arc<dyn Store> {
        Arc::new(PostgresStore::new(self.pool(connections).await))
    }

    async fn guarded(
        &self,
        builder: SubscriptionBuilder,
        by: By,
        clock: Option<&ManualClock>,
    ) -> SubscriptionBuilder {
        let mut strategy = by.transactional(Transactional::new(self.pool(4).await));
        if let Some(clock) = clock {
            strategy = strategy.clock(clock.clone());
        }
        builder.idempotent(strategy)
    }

    async fn transactional(
        &self,
        builder: SubscriptionBuilder,
        by: By,
        clock: Option<&ManualClock>,
        handling: Handling,
    ) -> Subscription {
        self.guarded(builder, by, clock).await.handler(inserting(handling, insert))
    }

    async fn effects(&self) -> Vec<Effect> {
        let rows: Vec<(String, i64)> = sqlx::query_as("SELECT id, attempt FROM effects")
            .fetch_all(&self.pool(1).await)
            .await
            .unwrap();
        let effect = |(id, attempt)| Effect { id, attempt: u32::try_from(attempt).unwrap() };
        rows.into_iter().map(effect).collect()
    }
}

fn insert(tx: &mut Tx<Postgres>, effect: Effect) -> BoxFuture<'_, sqlx::Result<()>> {
    let query = sqlx::query("INSERT INTO effects VALUES ($1, $2)")
        .bind(effect.id)
        .bind(i64::from(effect.attempt));
    Box::pin(async move { query.execute(&mut **tx).await.map(drop) })
}
