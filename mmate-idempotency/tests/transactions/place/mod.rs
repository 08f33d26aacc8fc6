//! The databases that transactions are in, each in a file of its own.

mod postgres;
mod sqlite;

use futures_util::future::BoxFuture;
use mmate_idempotency::TransactionalDatabase;
use sqlx::Pool;

pub(crate) use self::postgres::Schema;

/// A database under test.
pub(crate) trait Place: TransactionalDatabase {
    /// What is one bench's, and goes with it.
    type Home: Send + Sync + 'static;

    /// How a transaction that may write begins.
    const BEGIN: &'static str;

    /// Whether a record was processed within the last minute.
    const IS_RECENT: &'static str;

    fn home() -> BoxFuture<'static, Self::Home>;

    fn pool(home: &Self::Home, connections: u32) -> BoxFuture<'_, Pool<Self>>;

    fn run<'a>(
        connection: &'a mut <Self as sqlx::Database>::Connection,
        sql: &'a str,
    ) -> BoxFuture<'a, sqlx::Result<()>>;

    /// The number that a query answers.
    fn number<'a>(
        connection: &'a mut <Self as sqlx::Database>::Connection,
        sql: &'a str,
    ) -> BoxFuture<'a, sqlx::Result<i64>>;
}

/// Makes a test of each case on every database.
macro_rules! on_every_database {
    ($($case:ident),* $(,)?) => {
        $crate::place::on!(on_sqlite, Sqlite, $($case),*);
        $crate::place::on!(on_postgres, Postgres, $($case),*);
    };
}

/// Makes a test of each case.
macro_rules! on {
    ($module:ident, $database:ident, $($case:ident),*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$case($crate::bench::Bench::<sqlx::$database>::new().await).await;
                }
            )*
        }
    };
}

pub(crate) use {on, on_every_database};
