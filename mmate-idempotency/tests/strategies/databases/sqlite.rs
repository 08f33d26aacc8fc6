//! A database file.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use mmate_core::{Subscription, SubscriptionBuilder};
use mmate_idempotency::store::ManualClock;
use mmate_idempotency::{SqliteStore, Store, Transactional, Tx};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Sqlite, SqlitePool};

use super::{By, Database, Handling, inserting};
use crate::effects::Effect;

pub(crate) struct OnSqlite(PathBuf);

impl OnSqlite {
    pub(crate) fn at(file: PathBuf) -> Self {
        Self(file)
    }

    /// A pool as a user makes one.
    pub(crate) async fn pool(&self, connections: u32) -> SqlitePool {
        let options = SqliteConnectOptions::new()
            .filename(&self.0)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        SqlitePoolOptions::new().max_connections(connections).connect_with(options).await.unwrap()
    }
}

#[async_trait]
impl Database for OnSqlite {
    async fn prepare(&self) {
        let sql = "CREATE TABLE effects (id TEXT, attempt INTEGER)";
        sqlx::query(sql).execute(&self.pool(1).await).await.unwrap();
    }

    async fn store(&self, clock: Option<&ManualClock>) -> Arc<dyn Store> {
        let store = SqliteStore::open(&self.0).await.unwrap();
        Arc::new(match clock {
            Some(clock) => store.clock(clock.clone()),
            None => store,
        })
    }

    async fn store_on_pool(&self, connections: u32) -> Arc<dyn Store> {
        Arc::new(SqliteStore::new(self.pool(connections).await))
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
        let rows: Vec<(String, u32)> = sqlx::query_as("SELECT id, attempt FROM effects")
            .fetch_all(&self.pool(1).await)
            .await
            .unwrap();
        rows.into_iter().map(|(id, attempt)| Effect { id, attempt }).collect()
    }
}

fn insert(tx: &mut Tx<Sqlite>, effect: Effect) -> BoxFuture<'_, sqlx::Result<()>> {
    let query =
        sqlx::query("INSERT INTO effects VALUES (?, ?)").bind(effect.id).bind(effect.attempt);
    Box::pin(async move { query.execute(&mut **tx).await.map(drop) })
}
