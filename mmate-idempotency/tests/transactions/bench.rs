//! A database, a broker, and what is in them.

use std::time::Duration;

use mmate_core::{
    Counts, Handler, InProcess, Outgoing, RetryPolicy, Running, Service, Subscription,
};
use mmate_idempotency::{Transactional, Tx};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Connection, Sqlite, SqlitePool};
use tempfile::TempDir;

/// A database file with a table of effects, a parent and a child table, and a broker.
pub(crate) struct Bench {
    pub(crate) broker: InProcess,
    pub(crate) pool: SqlitePool,
    pub(crate) folder: TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool_of(&folder, 3).await;
        let sql = "CREATE TABLE effects (id TEXT);
            CREATE TABLE parents (id INTEGER PRIMARY KEY);
            CREATE TABLE children (
                parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED
            )";
        sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        Self { broker: InProcess::new(), pool, folder }
    }

    pub(crate) fn strategy(&self) -> Transactional<Sqlite> {
        Transactional::new(self.pool.clone())
    }

    pub(crate) async fn start<H: Handler<Args>, Args: 'static>(&self, handler: H) -> Running {
        self.start_with(self.strategy(), handler).await
    }

    pub(crate) async fn start_with<H: Handler<Args>, Args: 'static>(
        &self,
        strategy: Transactional<Sqlite>,
        handler: H,
    ) -> Running {
        let subscription = Subscription::per_service("q", ["thing.#"])
            .retry(RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(3))
            .idempotent(strategy)
            .handler(handler);
        let service = Service::new("s").drain_timeout(Duration::ZERO).subscribe(subscription);
        service.start(self.broker.clone()).await.unwrap()
    }

    pub(crate) async fn publish(&self, running: &Running, id: &str) {
        running.publisher().publish(thing(id)).await.unwrap();
    }

    pub(crate) async fn effects(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM effects").fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn records(&self) -> i64 {
        let sql = "SELECT count(*) FROM processed_messages";
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Every connection of the pool takes a transaction of its own: none came back with one open.
    pub(crate) async fn assert_no_connection_is_dirty(&self) {
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(self.pool.acquire().await.unwrap());
        }
        for connection in &mut all {
            let tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
            tx.rollback().await.unwrap();
        }
    }
}

pub(crate) async fn pool_of(folder: &TempDir, connections: u32) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("bench.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    SqlitePoolOptions::new().max_connections(connections).connect_with(options).await.unwrap()
}

pub(crate) fn thing(id: &str) -> Outgoing {
    Outgoing::event("thing.made.eu", "Thing", "payload").id_text(id)
}

pub(crate) async fn effect(tx: &mut Tx<Sqlite>) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO effects VALUES ('x')").execute(&mut **tx).await.map(drop)
}

/// Waits until nothing is left to do; the counts then.
pub(crate) async fn done(bench: &Bench, running: &Running) -> Counts {
    tokio::time::timeout(Duration::from_secs(60), bench.broker.idle()).await.unwrap();
    running.stats().total()
}
