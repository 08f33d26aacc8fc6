//! A database that dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{HandlerError, MessageId, Meta, RetryPolicy, Service, Subscription};
use mmate_idempotency::{MySqlStore, Tracked, Transactional, Tx};
use mmate_test_support::MariaDb;
use sqlx::{MySql, MySqlPool};

use crate::bench::{Bench, done, pool_of};

const MESSAGES: usize = 1500;
const KILLS: usize = 3;

async fn insert(meta: &Meta, pool_or_tx: impl sqlx::MySqlExecutor<'_>) -> sqlx::Result<()> {
    let id = meta.id.as_ref().map(MessageId::as_str);
    sqlx::query("INSERT INTO effects VALUES (?)").bind(id).execute(pool_or_tx).await.map(drop)
}

/// Kills the database several times while messages are at work.
async fn kill(mut database: MariaDb, runs: &Arc<AtomicUsize>) -> MariaDb {
    for kill in 1..=KILLS {
        let due = MESSAGES * kill / (KILLS + 2);
        let reached = async {
            while runs.load(Ordering::SeqCst) < due {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), reached).await.unwrap();
        database = tokio::task::spawn_blocking(move || {
            database.kill();
            database.start_again().unwrap();
            database
        })
        .await
        .unwrap();
    }
    database
}

async fn start_database() -> MariaDb {
    tokio::task::spawn_blocking(|| MariaDb::start().unwrap()).await.unwrap()
}

/// F46: `Transactional`: none lost, none doubled, none stuck.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_database_that_is_killed_under_load_each_message_has_its_effect_once() {
    let database = start_database().await;
    let bench = Bench::at(&database.url()).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let handler = {
        let runs = Arc::clone(&runs);
        move |meta: Meta, mut tx: Tx<MySql>| {
            runs.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<(), HandlerError>(insert(&meta, &mut *tx).await?) }
        }
    };
    let subscription = Subscription::per_service("q", ["thing.#"])
        .retry(RetryPolicy::fixed(Duration::from_millis(200)).max_attempts(50))
        .idempotent(Transactional::new(pool_of(&bench.options, 8).await))
        .handler(handler);
    let running =
        Service::new("s").subscribe(subscription).start(bench.broker.clone()).await.unwrap();
    for id in 0..MESSAGES {
        bench.publish(&running, &format!("{id}")).await;
    }
    let database = kill(database, &runs).await;
    let counts = done(&bench, &running).await;
    let effects = bench.effects_by_id().await;
    assert_eq!(effects.len(), MESSAGES, "none is lost");
    assert!(effects.iter().all(|count| *count == 1), "none is doubled");
    assert_eq!(counts.dead_lettered, 0);
    assert_eq!(counts.succeeded + counts.duplicates.total(), MESSAGES as u64);
    assert_nothing_is_stuck(&bench.pool).await;
    drop(database);
}

/// F46: `Tracked`: none lost, none stuck. An effect and its record are not one here; but they are
/// repeated only where the database died in between, with at most as many as were under way.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_store_that_is_killed_under_load_no_message_is_lost() {
    let database = start_database().await;
    let bench = Bench::at(&database.url()).await;
    let store = MySqlStore::new(pool_of(&bench.options, 8).await);
    let runs = Arc::new(AtomicUsize::new(0));
    let handler = {
        let runs = Arc::clone(&runs);
        move || {
            runs.fetch_add(1, Ordering::SeqCst);
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let subscription = Subscription::per_service("q", ["thing.#"])
        .idempotent(Tracked::new(store))
        .handler(handler);
    let running =
        Service::new("s").subscribe(subscription).start(bench.broker.clone()).await.unwrap();
    for id in 0..MESSAGES {
        bench.publish(&running, &format!("{id}")).await;
    }
    let database = kill(database, &runs).await;
    let counts = done(&bench, &running).await;
    assert_eq!(counts.dead_lettered, 0);
    assert_eq!(counts.succeeded + counts.duplicates.total(), MESSAGES as u64);
    // A completion whose answer was lost is repeated, and so is no reason to run anything again.
    assert_eq!(runs.load(Ordering::SeqCst), MESSAGES);
    let done: i64 =
        sqlx::query_scalar("SELECT count(*) FROM processed_messages WHERE status = 'done'")
            .fetch_one(&bench.pool)
            .await
            .unwrap();
    assert_eq!(done, MESSAGES as i64);
    assert_nothing_is_stuck(&bench.pool).await;
    drop(database);
}

/// No claim is held and no transaction is open.
async fn assert_nothing_is_stuck(pool: &MySqlPool) {
    let held = "SELECT count(*) FROM processed_messages WHERE status = 'in progress'";
    let held: i64 = sqlx::query_scalar(held).fetch_one(pool).await.unwrap();
    assert_eq!(held, 0);
    let open = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_rows_modified > 0";
    let open: i64 = sqlx::query_scalar(open).fetch_one(pool).await.unwrap();
    assert_eq!(open, 0);
}
