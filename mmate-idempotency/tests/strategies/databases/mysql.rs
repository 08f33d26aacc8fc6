//! A database in the MariaDB of the run.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use mmate_core::{Subscription, SubscriptionBuilder};
use mmate_idempotency::store::ManualClock;
use mmate_idempotency::{MySqlStore, Store, Transactional, Tx};
use mmate_test_support::{mariadb_url, unique};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{AssertSqlSafe, MySql, MySqlPool};

use super::{By, Database, Handling, inserting};
use crate::effects::Effect;

pub(crate) struct OnMySql {
    database: String,
}

impl OnMySql {
    pub(crate) fn new() -> Self {
        Self { database: unique("house") }
    }

    fn url(&self) -> String {
        let (server, _) =
            mariadb_url().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        format!("{server}/{}", self.database)
    }

    /// A pool as a user makes one.
    async fn pool(&self, connections: u32) -> MySqlPool {
        let options = MySqlPoolOptions::new().max_connections(connections);
        options.connect(&self.url()).await.unwrap()
    }
}

#[async_trait]
impl Database for OnMySql {
    async fn prepare(&self) {
        let database = &self.database;
        let server =
            MySqlPoolOptions::new().max_connections(1).connect(&mariadb_url()).await.unwrap();
        let sql = format!(
            "CREATE DATABASE {database}; \
             CREATE TABLE {database}.effects (id VARCHAR(255), attempt BIGINT)"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&server).await.unwrap();
    }

    async fn store(&self, clock: Option<&ManualClock>) -> Arc<dyn Store> {
        let store = MySqlStore::connect(&self.url()).await.unwrap();
        Arc::new(match clock {
            Some(clock) => store.clock(clock.clone()),
            None => store,
        })
    }

    async fn store_on_pool(&self, connections: u32) -> Arc<dyn Store> {
        Arc::new(MySqlStore::new(self.pool(connections).await))
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

fn insert(tx: &mut Tx<MySql>, effect: Effect) -> BoxFuture<'_, sqlx::Result<()>> {
    let query = sqlx::query("INSERT INTO effects VALUES (?, ?)")
        .bind(effect.id)
        .bind(i64::from(effect.attempt));
    Box::pin(async move { query.execute(&mut **tx).await.map(drop) })
}
