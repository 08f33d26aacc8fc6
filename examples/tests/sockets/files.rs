//! Database files of servers, reached into from outside.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

/// Executes statements on a file of SQLite, which is made if it is not there. Gives how many rows they changed.
pub(crate) fn execute(file: &Path, sql: &'static str) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let changed = sqlx::raw_sql(sql).execute(&pool).await.unwrap().rows_affected();
        pool.close().await;
        changed
    })
}
