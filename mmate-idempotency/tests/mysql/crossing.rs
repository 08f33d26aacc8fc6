//! Transactions in each other's way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{HandlerError, MessageId, Meta};
use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey, StoreErrorKind};
use mmate_idempotency::{MySqlStore, Permit, Store, Tx};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{MySql, MySqlConnection};
use tokio::sync::Barrier;

use crate::bench::{Bench, done, pool_of};

const LEASE: Duration = Duration::from_secs(60);
/// So many round trips of a store are under way at once.
const LANES: u32 = 4;

async fn run(connection: &mut MySqlConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

fn request(id: &str) -> ClaimRequest<'static> {
    ClaimRequest::new(RecordKey::new("scope", id).unwrap(), Claimant::default(), LEASE)
}

async fn granted(store: &MySqlStore, id: &str) -> Permit {
    let request = request(id);
    let Claim::Granted(grant) = store.claim(&request).await.unwrap() else { panic!("granted") };
    Permit::new(&request, grant)
}

/// F45: one of two handlers that lock rows crosswise is rolled back as a whole, and runs again, within
/// the same attempt.
#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_deadlock_each_have_their_effect_once() {
    let bench = Bench::new().await;
    let sql = "CREATE TABLE stock (sku CHAR(1) PRIMARY KEY, left_over INT); \
               INSERT INTO stock VALUES ('a', 10), ('b', 10)";
    sqlx::raw_sql(sql).execute(&bench.pool).await.unwrap();
    let (both, runs) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
    let running = {
        let (both, runs) = (Arc::clone(&both), Arc::clone(&runs));
        bench
            .start(move |meta: Meta, mut tx: Tx<MySql>| {
                let (both, runs) = (Arc::clone(&both), Arc::clone(&runs));
                async move {
                    let is_first = runs.fetch_add(1, Ordering::SeqCst) < 2;
                    let take = "UPDATE stock SET left_over = left_over - 1 WHERE sku = ?";
                    let order = match meta.id.as_ref().map(MessageId::as_str) {
                        Some("one") => ["a", "b"],
                        _ => ["b", "a"],
                    };
                    sqlx::query(take).bind(order[0]).execute(&mut *tx).await?;
                    if is_first {
                        both.wait().await;
                    }
                    sqlx::query(take).bind(order[1]).execute(&mut *tx).await?;
                    Ok::<(), HandlerError>(())
                }
            })
            .await
    };
    bench.publish(&running, "one").await;
    bench.publish(&running, "two").await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (2, 0, 0));
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    let left: Vec<i32> =
        sqlx::query_scalar("SELECT left_over FROM stock").fetch_all(&bench.pool).await.unwrap();
    assert_eq!(left, [8, 8]);
}

/// F45: a handler that goes on after a deadlock has lost its record with the rest of the transaction.
/// What it did since would otherwise be committed alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_goes_on_after_a_deadlock_commits_nothing() {
    let bench = Bench::new().await;
    let sql = "CREATE TABLE stock (sku CHAR(1) PRIMARY KEY, left_over INT); \
               INSERT INTO stock VALUES ('a', 10), ('b', 10)";
    sqlx::raw_sql(sql).execute(&bench.pool).await.unwrap();
    let (options, deadlocks) = (bench.options.clone(), Arc::new(AtomicUsize::new(0)));
    let running = {
        let deadlocks = Arc::clone(&deadlocks);
        bench
            .start(move |mut tx: Tx<MySql>| {
                let (options, deadlocks) = (options.clone(), Arc::clone(&deadlocks));
                async move {
                    let mut other = sqlx::ConnectOptions::connect(&options).await.unwrap();
                    if deadlocks.load(Ordering::SeqCst) == 0 {
                        // So heavy that the database gives up the other one.
                        run(
                            &mut other,
                            "START TRANSACTION; INSERT INTO effects SELECT 'other' FROM \
                             information_schema.columns LIMIT 1000; \
                             UPDATE stock SET left_over = 0 WHERE sku = 'b'",
                        )
                        .await;
                        run(&mut tx, "UPDATE stock SET left_over = 9 WHERE sku = 'a'").await;
                        let waits = tokio::spawn(async move {
                            run(&mut other, "UPDATE stock SET left_over = 0 WHERE sku = 'a'").await;
                            run(&mut other, "ROLLBACK").await;
                        });
                        let cross = sqlx::raw_sql("UPDATE stock SET left_over = 9 WHERE sku = 'b'");
                        let crossed = cross.execute(&mut *tx).await;
                        assert!(crossed.unwrap_err().to_string().contains("1213"));
                        deadlocks.fetch_add(1, Ordering::SeqCst);
                        waits.await.unwrap();
                    }
                    run(&mut tx, "INSERT INTO effects VALUES ('own')").await;
                    Ok::<(), HandlerError>(())
                }
            })
            .await
    };
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    assert_eq!(deadlocks.load(Ordering::SeqCst), 1);
    assert_eq!((counts.succeeded, counts.retried), (1, 1));
    // What it did after the deadlock was in no transaction, and still is not there.
    assert_eq!((bench.effects().await, bench.records().await), (1, 1));
}

/// F45: calls that are made together are made again, and nobody hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_round_trip_that_deadlocks_is_made_again() {
    let bench = Bench::new().await;
    let store = MySqlStore::new(pool_of(&bench.options, LANES).await);
    store.migrate().await.unwrap();
    let mut permits = Vec::new();
    for id in ["a", "b", "v", "w", "x", "y"] {
        permits.push(granted(&store, id).await);
    }
    // Whatever is asked next waits, and what comes meanwhile is made together.
    let (mut holds, mut crosses) = (bench.connect().await, bench.connect().await);
    run(
        &mut holds,
        "START TRANSACTION; SELECT * FROM processed_messages FORCE INDEX (PRIMARY) \
         WHERE scope = 'scope' AND message_id >= 'v' FOR UPDATE",
    )
    .await;
    let prolong = |permit: &Permit| {
        let (store, permit) = (store.clone(), permit.clone());
        tokio::spawn(async move { store.heartbeat(&permit, LEASE).await })
    };
    let mut all = Vec::new();
    for permit in &permits[2..6] {
        all.push(prolong(permit));
        bench.until_waiting(all.len()).await;
    }
    all.extend(permits[..2].iter().map(&prolong));
    // So heavy that the database gives up the other one.
    run(
        &mut crosses,
        "START TRANSACTION; INSERT INTO effects SELECT 'heavy' FROM \
         information_schema.columns LIMIT 1000; \
         SELECT * FROM processed_messages WHERE scope = 'scope' AND message_id = 'b' FOR UPDATE",
    )
    .await;
    run(&mut holds, "ROLLBACK").await;
    bench.until_waiting(1).await;
    // It has the one and waits for the other, so whoever gets the one now has had it given up.
    let taken = "SELECT * FROM processed_messages WHERE scope = 'scope' AND message_id = 'a' \
                 FOR UPDATE NOWAIT";
    assert!(sqlx::raw_sql(taken).execute(&mut holds).await.is_err());
    run(
        &mut crosses,
        "SELECT * FROM processed_messages WHERE scope = 'scope' AND message_id = 'a' FOR UPDATE",
    )
    .await;
    run(&mut crosses, "ROLLBACK").await;
    for prolonged in all {
        assert_eq!(prolonged.await.unwrap().unwrap(), Held::Yes);
    }
}

/// F44, F46: nothing is left behind by a call that waited in vain: no lock, no open transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_too_long_for_a_lock_changes_nothing_and_leaves_nothing() {
    let bench = Bench::new().await;
    let impatient = MySqlPoolOptions::new()
        .max_connections(1)
        .after_connect(|connection, _| {
            Box::pin(async move {
                let set = "SET SESSION innodb_lock_wait_timeout = 1";
                sqlx::raw_sql(set).execute(connection).await.map(drop)
            })
        })
        .connect_with(bench.options.clone())
        .await
        .unwrap();
    let store = MySqlStore::new(impatient.clone());
    store.migrate().await.unwrap();
    let permit = granted(&store, "a").await;
    let mut holds = bench.connect().await;
    run(&mut holds, "START TRANSACTION; SELECT * FROM processed_messages FOR UPDATE").await;
    let error = store.complete(&permit, None).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    let error = store.claim(&request("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    run(&mut holds, "ROLLBACK").await;

    let open: bool = sqlx::query_scalar("SELECT CAST(@@in_transaction AS SIGNED)")
        .fetch_one(&impatient)
        .await
        .unwrap();
    assert!(!open);
    assert!(matches!(store.claim(&request("a")).await.unwrap(), Claim::Busy { .. }));
    assert_eq!(store.complete(&permit, None).await.unwrap(), Held::Yes);
}

/// A session that waits for less is left so, and none waits for longer than answers are waited for.
#[tokio::test]
async fn a_session_waits_four_seconds_for_a_lock_at_most() {
    let bench = Bench::new().await;
    let pool = MySqlPoolOptions::new().max_connections(1).connect_with(bench.options.clone());
    let pool = pool.await.unwrap();
    let store = MySqlStore::new(pool.clone());
    store.migrate().await.unwrap();
    for (given, waits) in [(50, 4), (2, 2)] {
        let set = format!("SET SESSION innodb_lock_wait_timeout = {given}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&pool).await.unwrap();
        store.claim(&request("a")).await.unwrap();
        let now: i64 = sqlx::query_scalar("SELECT CAST(@@innodb_lock_wait_timeout AS SIGNED)")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(now, waits);
    }
}
