//! What is wrong is told when the service starts.

use mmate_core::{HandlerError, InProcess, Service, ServiceError, Subscription};
use mmate_idempotency::{MemoryStore, Permit, SqliteStore, Tracked, Tx};
use sqlx::Sqlite;

use crate::bench::{Bench, done};

async fn start_error(subscription: Subscription) -> String {
    let started = Service::new("s").subscribe(subscription).start(InProcess::new()).await;
    match started {
        Err(error @ (ServiceError::Config(_) | ServiceError::Middleware { .. })) => {
            error.to_string()
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it started"),
    }
}

#[tokio::test]
async fn a_transaction_that_nobody_gives_is_told_at_the_start_with_what_to_do() {
    async fn handler(_tx: Tx<Sqlite>) -> Result<(), HandlerError> {
        Ok(())
    }
    let unguarded = Subscription::per_service("q", ["thing.#"]).handler(handler);
    let error = start_error(unguarded).await;
    assert!(error.contains("takes Tx<Sqlite>"), "{error}");
    assert!(error.contains(".idempotent(Transactional::new(pool))"), "{error}");
    let tracked = Subscription::per_service("q", ["thing.#"])
        .idempotent(Tracked::new(MemoryStore::new()))
        .handler(handler);
    assert!(start_error(tracked).await.contains("takes Tx<Sqlite>"));
}

#[tokio::test]
async fn a_permit_that_nobody_gives_is_told_at_the_start_with_what_to_do() {
    async fn handler(_permit: Permit) -> Result<(), HandlerError> {
        Ok(())
    }
    let unguarded = Subscription::per_service("q", ["thing.#"]).handler(handler);
    let error = start_error(unguarded).await;
    assert!(error.contains(".idempotent(Tracked::new(store))"), "{error}");
}

#[tokio::test]
async fn a_table_of_another_shape_is_told_at_the_start() {
    let cases = [
        (
            "CREATE TABLE processed_messages (message_id TEXT PRIMARY KEY, processed_at TEXT)",
            "there is no column \"scope\"",
        ),
        (
            "CREATE TABLE processed_messages (scope TEXT NOT NULL, message_id TEXT NOT NULL \
             COLLATE NOCASE, status TEXT NOT NULL, processed_at TEXT, service_name TEXT NOT NULL, \
             subscription TEXT NOT NULL, instance TEXT NOT NULL, correlation_id TEXT, message_type \
             TEXT NOT NULL, fingerprint BLOB, owner BLOB NOT NULL, fence INTEGER NOT NULL, attempt \
             INTEGER NOT NULL, taken_over INTEGER NOT NULL, claimed_at INTEGER NOT NULL, \
             lease_until INTEGER, expires_at INTEGER, reply BLOB, PRIMARY KEY (scope, message_id))",
            "ids would not be compared byte by byte (message_id NOCASE)",
        ),
    ];
    for (sql, complaint) in cases {
        let bench = Bench::<Sqlite>::new().await;
        sqlx::raw_sql(sql).execute(&bench.pool).await.unwrap();
        let guarded = Subscription::per_service("q", ["thing.#"])
            .idempotent(bench.strategy())
            .handler(async || Ok::<(), HandlerError>(()));
        let error = start_error(guarded).await;
        assert!(error.contains(complaint), "{error}");
        assert!(error.contains("rename it"), "{error}");

        let store = SqliteStore::open(bench.home.path().join("bench.db")).await.unwrap();
        let guarded = Subscription::per_service("q", ["thing.#"])
            .idempotent(Tracked::new(store))
            .handler(async || Ok::<(), HandlerError>(()));
        assert!(start_error(guarded).await.contains(complaint));
    }
}

#[tokio::test]
async fn the_table_may_have_another_name_and_no_name_is_a_statement() {
    let bench = Bench::<Sqlite>::new().await;
    let strategy = bench.strategy().table("of_this_service").unwrap();
    let running = bench.start_with(strategy, async || Ok::<(), HandlerError>(())).await;
    bench.publish(&running, "a").await;
    done(&bench, &running).await;
    let records: i64 = sqlx::query_scalar("SELECT count(*) FROM of_this_service")
        .fetch_one(&bench.pool)
        .await
        .unwrap();
    assert_eq!(records, 1);
    let injected = bench.strategy().table("x\"; DROP TABLE effects; --").unwrap_err();
    assert!(injected.to_string().contains("cannot be the name of a table"));
}
