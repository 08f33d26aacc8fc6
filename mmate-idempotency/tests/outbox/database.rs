//! The databases, and how a case runs in each.

use std::time::Duration;

use mmate_idempotency::outbox::OutboxDatabase;
use mmate_test_support::{mariadb_url, postgres_url, unique};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, MySql, Pool, Postgres, Sqlite, SqlitePool};
use tempfile::TempDir;

/// A pool, a table that nobody else uses, and what belongs to them.
pub(crate) struct Place<DB: OutboxDatabase> {
    pub(crate) pool: Pool<DB>,
    pub(crate) table: String,
    #[expect(dead_code, reason = "it goes with the place")]
    folder: Option<TempDir>,
}

impl<DB: OutboxDatabase> Place<DB> {
    fn new(pool: Pool<DB>, folder: Option<TempDir>) -> Self {
        Self { pool, table: unique("outbox"), folder }
    }
}

/// What the cases need beside what the outbox does.
pub(crate) trait TestDatabase: OutboxDatabase {
    async fn place() -> Place<Self>;

    /// A number that a statement selects, `{table}` being the table.
    async fn number(place: &Place<Self>, sql: &str) -> i64;

    async fn execute(place: &Place<Self>, sql: &str);
}

pub(crate) async fn sqlite_pool(folder: &TempDir) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("outbox.db"))
        .create_if_missing(true)
        .busy_timeout(Duration::from_secs(60))
        .journal_mode(SqliteJournalMode::Wal);
    SqlitePoolOptions::new().max_connections(8).connect_with(options).await.unwrap()
}

macro_rules! test_database {
    ($Database:ty, $quote:literal, $place:block) => {
        impl TestDatabase for $Database {
            async fn place() -> Place<Self> {
                $place
            }

            async fn number(place: &Place<Self>, sql: &str) -> i64 {
                let table = format!("{0}{1}{0}", $quote, place.table);
                let sql = AssertSqlSafe(sql.replace("{table}", &table));
                sqlx::query_scalar::<Self, i64>(sql).fetch_one(&place.pool).await.unwrap()
            }

            async fn execute(place: &Place<Self>, sql: &str) {
                let table = format!("{0}{1}{0}", $quote, place.table);
                let sql = AssertSqlSafe(sql.replace("{table}", &table));
                sqlx::query::<Self>(sql).execute(&place.pool).await.unwrap();
            }
        }
    };
}

test_database!(Sqlite, '"', {
    let folder = tempfile::tempdir().unwrap();
    Place::new(sqlite_pool(&folder).await, Some(folder))
});

test_database!(Postgres, '"', {
    let options = PgPoolOptions::new().max_connections(8);
    Place::new(options.connect(&postgres_url()).await.unwrap(), None)
});

test_database!(MySql, '`', {
    let options = MySqlPoolOptions::new().max_connections(8);
    Place::new(options.connect(&mariadb_url()).await.unwrap(), None)
});

/// Makes of each case, a function of a type of database, a test for each of them.
macro_rules! in_every_database {
    ($($(#[$doc:meta])* $case:ident),+ $(,)?) => {
        mod sqlite {
            $($(#[$doc])* #[tokio::test(flavor = "multi_thread")]
            async fn $case() { super::$case::<sqlx::Sqlite>().await })+
        }
        mod postgres {
            $($(#[$doc])* #[tokio::test(flavor = "multi_thread")]
            async fn $case() { super::$case::<sqlx::Postgres>().await })+
        }
        mod mariadb {
            $($(#[$doc])* #[tokio::test(flavor = "multi_thread")]
            async fn $case() { super::$case::<sqlx::MySql>().await })+
        }
    };
}
pub(crate) use in_every_database;
