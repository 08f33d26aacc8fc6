//! SQLite, which is told that there are no more pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mmate_core::{HandlerError, Meta};
use mmate_idempotency::{SqliteStore, Tracked, Transactional, Tx};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Sqlite, SqlitePool};

use crate::{Disk, Effects, MESSAGES, fails_closed_and_goes_on};

/// How many pages the database may have; each connection is told before it is used.
struct Pages {
    most: Arc<AtomicU32>,
    folder: tempfile::TempDir,
}

/// What SQLite takes for "no limit".
const ALL: u32 = u32::MAX - 1;

impl Pages {
    fn new() -> Self {
        let (most, folder) = (Arc::new(AtomicU32::new(ALL)), tempfile::tempdir().unwrap());
        Self { most, folder }
    }

    async fn pool(&self) -> SqlitePool {
        let options = SqliteConnectOptions::new()
            .filename(self.folder.path().join("full.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(10));
        let most = Arc::clone(&self.most);
        let pool =
            SqlitePoolOptions::new().max_connections(2).before_acquire(move |connection, _| {
                let most = most.load(Ordering::SeqCst);
                Box::pin(async move {
                    let limit = format!("PRAGMA max_page_count = {most}");
                    sqlx::raw_sql(AssertSqlSafe(limit)).execute(connection).await?;
                    Ok(true)
                })
            });
        pool.connect_with(options).await.unwrap()
    }
}

impl Disk for Pages {
    /// Below what there is, it is what there is.
    async fn fill(&mut self) {
        self.most.store(1, Ordering::SeqCst);
    }

    async fn free(&mut self) {
        self.most.store(ALL, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tracked_fails_closed_and_goes_on_with_sqlite() {
    let mut pages = Pages::new();
    let effects = Effects::default();
    let strategy = Tracked::new(SqliteStore::new(pages.pool().await));
    fails_closed_and_goes_on(&mut pages, 5, strategy, effects.handler()).await;
    effects.assert_one_each_but_of_those_under_way();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_fail_closed_and_go_on_with_sqlite() {
    let mut pages = Pages::new();
    let pool = pages.pool().await;
    sqlx::query("CREATE TABLE effects (id TEXT)").execute(&pool).await.unwrap();
    let handler = async |meta: Meta, mut tx: Tx<Sqlite>| {
        let id = meta.id.map(|id| id.to_string());
        sqlx::query("INSERT INTO effects VALUES (?)").bind(id).execute(&mut *tx).await?;
        Ok::<(), HandlerError>(())
    };
    fails_closed_and_goes_on(&mut pages, 5, Transactional::new(pool.clone()), handler).await;
    let counted = "SELECT count(*), count(DISTINCT id) FROM effects";
    let counts: (i64, i64) = sqlx::query_as(counted).fetch_one(&pool).await.unwrap();
    assert_eq!(counts, (MESSAGES as i64, MESSAGES as i64));
}
