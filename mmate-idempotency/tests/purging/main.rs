//! Purging beside claims.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod databases;
mod load;
mod pace;
mod phases;
mod plans;
mod watched;

use databases::{OnMariaDb, OnPostgres, OnSqlite};
use phases::{Sizes, is_long};

/// S39: what is over goes and nothing else does, and of eight claimers beside it none fails.
///
/// With `MMATE_TEST_LONG=1`, on a table of ten million records, it also measures how long they take.
async fn claims_go_on_beside_purges(database: &impl databases::Database) {
    let sizes = if is_long() { Sizes::long() } else { Sizes::short() };
    phases::run(database, &sizes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_claims_go_on_beside_purges() {
    claims_go_on_beside_purges(&OnSqlite::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_claims_go_on_beside_purges() {
    claims_go_on_beside_purges(&OnPostgres::new(is_long()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb_claims_go_on_beside_purges() {
    claims_go_on_beside_purges(&OnMariaDb::new(is_long()).await).await;
}
