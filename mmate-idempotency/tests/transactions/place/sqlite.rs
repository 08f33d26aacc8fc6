//! A database file.

use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection, SqlitePool};
use tempfile::TempDir;

use super::Place;

impl Place for Sqlite {
    type Home = TempDir;

    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const IS_RECENT: &'static str = "abs(unixepoch(processed_at) - unixepoch('now')) < 60";

    fn home() -> BoxFuture<'static, TempDir> {
        Box::pin(async { tempfile::tempdir().unwrap() })
    }

    fn pool(home: &TempDir, connections: u32) -> BoxFuture<'_, SqlitePool> {
        let options = SqliteConnectOptions::new()
            .filename(home.path().join("bench.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let pool = SqlitePoolOptions::new().max_connections(connections);
        Box::pin(async move { pool.connect_with(options).await.unwrap() })
    }

    fn run<'a>(
        connection: &'a mut SqliteConnection,
        sql: &'a str,
    ) -> BoxFuture<'a, sqlx::Result<()>> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        Box::pin(async move { query.execute(connection).await.map(drop) })
    }

    fn number<'a>(
        connection: &'a mut SqliteConnection,
        sql: &'a str,
    ) -> BoxFuture<'a, sqlx::Result<i64>> {
        let query = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
        Box::pin(async move { query.fetch_one(connection).await })
    }
}
