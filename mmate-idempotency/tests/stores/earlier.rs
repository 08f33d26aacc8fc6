//! Tables as an earlier version has made them.

use mmate_core::TraceParent;
use mmate_idempotency::protocol::Claim;
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey};
use mmate_idempotency::{Permit, SqliteStore};
use tokio::task::JoinSet;

use super::*;

/// Several instances of this version begin at once; from then on duplicates know their trace.
async fn begin_and_go_on<S: Store + 'static>(stores: Vec<S>) {
    let place: TraceParent =
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
    let mut beginning = JoinSet::new();
    for (number, store) in stores.into_iter().enumerate() {
        beginning.spawn(async move {
            store.migrate().await.unwrap();
            store.migrate().await.unwrap();
            let key = RecordKey::new("scope", format!("{number}")).unwrap();
            let lease = Duration::from_secs(60);
            let mut request = ClaimRequest::new(key, Claimant::default(), lease);
            request.trace = Some(place);
            let Claim::Granted(grant) = store.claim(&request).await.unwrap() else { panic!() };
            store.complete(&Permit::new(&request, grant), None).await.unwrap();
            let again = ClaimRequest::new(request.key.clone(), Claimant::default(), lease);
            let Claim::Duplicate(seen) = store.claim(&again).await.unwrap() else { panic!() };
            assert_eq!(seen.trace, Some(place));
        });
    }
    beginning.join_all().await;
}

/// The statements that the earlier version has made a table with.
macro_rules! earlier {
    ($folder:literal, $table:expr) => {
        include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/migrations/",
            $folder,
            "/0001_processed_messages.sql"
        ))
        .replace("{table}", $table)
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_sqlite_that_was_made_earlier_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let sql = earlier!("sqlite", "processed_messages");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    pool.close().await;
    let mut stores = Vec::new();
    for _ in 0..8 {
        stores.push(SqliteStore::open(&file).await.unwrap());
    }
    begin_and_go_on(stores).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_postgresql_that_was_made_earlier_is_used() {
    use mmate_idempotency::PostgresStore;
    use mmate_test_support::{postgres_url, unique};

    let table = unique("records");
    let pool = sqlx::PgPool::connect(&postgres_url()).await.unwrap();
    let sql = earlier!("postgres", &table);
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    let mut stores = Vec::new();
    for _ in 0..8 {
        let store = PostgresStore::connect(&postgres_url()).await.unwrap();
        stores.push(store.table(&table).unwrap());
    }
    begin_and_go_on(stores).await;
    // Who does not know the column goes on writing.
    let sql = format!(
        "INSERT INTO \"{table}\" (scope, message_id, status, service_name, subscription, instance, \
         message_type, owner, fence, attempt, taken_over, claimed_at) \
         VALUES ('scope', 'x', 'done', '', '', '', '', '', 1, 1, false, 1)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_mariadb_that_was_made_earlier_is_used() {
    use mmate_idempotency::MySqlStore;
    use mmate_test_support::{mariadb_url, unique};

    let table = unique("records").replace(['-', '.'], "_");
    let pool = sqlx::MySqlPool::connect(&mariadb_url()).await.unwrap();
    let sql = earlier!("mysql", &table);
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    let mut stores = Vec::new();
    for _ in 0..8 {
        let store = MySqlStore::connect(mariadb_url()).await.unwrap();
        stores.push(store.table(&table).unwrap());
    }
    begin_and_go_on(stores).await;
}
