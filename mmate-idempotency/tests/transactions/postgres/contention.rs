//! Transactions that get in each other's way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{HandlerError, Meta};
use mmate_idempotency::{Transactional, Tx};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Postgres};
use tokio::sync::Semaphore;

use super::load::{Handled, assert_one_effect_each, counts_when, ended, slowly};
use crate::bench::Bench;
use crate::place::Place;

/// A strategy on connections with a setting.
async fn with_setting(bench: &Bench<Postgres>, name: &str, value: &str) -> Transactional<Postgres> {
    let options: PgConnectOptions = bench.home.0.parse().unwrap();
    let options = options.options([(name, value)]);
    let pool = PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    Transactional::new(pool)
}

/// Does this, and then has its effect. Failures with that code are counted.
fn after(
    sql: impl Fn(&str) -> Vec<String> + Send + Sync + 'static,
    code: &'static str,
    failures: &Arc<AtomicUsize>,
) -> impl Fn(Meta, Tx<Postgres>) -> Handled + Send + Sync + 'static {
    let (failures, effect) = (Arc::clone(failures), slowly(Duration::ZERO));
    let effect = Arc::new(effect);
    move |meta, mut tx| {
        let sql = sql(meta.id.as_ref().map_or("", |id| id.as_str()));
        let (failures, effect) = (Arc::clone(&failures), Arc::clone(&effect));
        Box::pin(async move {
            for one in sql {
                if let Err(error) = Postgres::run(&mut tx, &one).await {
                    let found = error.as_database_error().and_then(|error| error.code());
                    failures
                        .fetch_add(usize::from(found.as_deref() == Some(code)), Ordering::SeqCst);
                    return Err(error.into());
                }
            }
            effect(meta, tx).await
        })
    }
}

/// F45
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_serialized_is_repeated_and_counts_as_no_attempt() {
    const MESSAGES: usize = 100;
    let bench = Bench::<Postgres>::new().await;
    let sql = "CREATE TABLE counters (n bigint); INSERT INTO counters VALUES (0)";
    Postgres::run(&mut bench.pool.acquire().await.unwrap(), sql).await.unwrap();
    let strategy = with_setting(&bench, "default_transaction_isolation", "serializable").await;
    let failures = Arc::default();
    let count = |_: &str| vec!["UPDATE counters SET n = n + 1".to_owned()];
    let running = bench.start_with(strategy, after(count, "40001", &failures)).await;
    for n in 0..MESSAGES {
        bench.publish(&running, &format!("{n}")).await;
        // A copy, whose claim meets the first one's.
        bench.publish(&running, &format!("{n}")).await;
    }
    let counts = ended(&running, 2 * MESSAGES).await;
    assert_one_effect_each(&bench, MESSAGES).await;
    assert_eq!(bench.number("SELECT n FROM counters").await, 100);
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0), "{counts:?}");
    assert_eq!(counts.succeeded, 100);
    assert!(failures.load(Ordering::SeqCst) > 0);
}

/// F45
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_repeated_and_counts_as_no_attempt() {
    const MESSAGES: usize = 40;
    let bench = Bench::<Postgres>::new().await;
    let sql = "INSERT INTO parents VALUES (1), (2)";
    Postgres::run(&mut bench.pool.acquire().await.unwrap(), sql).await.unwrap();
    let strategy = with_setting(&bench, "deadlock_timeout", "20ms").await;
    let failures = Arc::default();
    let in_their_orders = |id: &str| {
        let lock = |row| format!("SELECT FROM parents WHERE id = {row} FOR UPDATE");
        let pause = || "SELECT pg_sleep(0.01)".to_owned();
        let backwards = id.parse::<u32>().unwrap() % 2 == 0;
        let (one, other) = if backwards { (2, 1) } else { (1, 2) };
        vec![lock(one), pause(), lock(other)]
    };
    let running = bench.start_with(strategy, after(in_their_orders, "40P01", &failures)).await;
    for n in 0..MESSAGES {
        bench.publish(&running, &format!("{n}")).await;
    }
    let counts = ended(&running, MESSAGES).await;
    assert_one_effect_each(&bench, MESSAGES).await;
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0), "{counts:?}");
    assert!(failures.load(Ordering::SeqCst) > 0);
}

/// F44: somebody forgets a transaction that holds what handlers need, and the database frees it.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_stuck_transaction_waits_for_a_while_and_comes_back() {
    const MESSAGES: usize = 5;
    let bench = Bench::<Postgres>::new().await;
    let sql = "INSERT INTO parents VALUES (1)";
    Postgres::run(&mut bench.pool.acquire().await.unwrap(), sql).await.unwrap();
    let mut stuck = sqlx::PgConnection::connect(&bench.home.0).await.unwrap();
    let sql = "SET idle_in_transaction_session_timeout = '1s'; BEGIN; \
               SELECT FROM parents WHERE id = 1 FOR UPDATE";
    Postgres::run(&mut stuck, sql).await.unwrap();

    let strategy = bench.strategy().lock_timeout(Duration::from_millis(100));
    let failures = Arc::default();
    let lock = |_: &str| vec!["SELECT FROM parents WHERE id = 1 FOR UPDATE".to_owned()];
    let running = bench.start_with(strategy, after(lock, "55P03", &failures)).await;
    for n in 0..MESSAGES {
        bench.publish(&running, &format!("{n}")).await;
    }
    let counts = counts_when(&running, |counts| counts.deferred >= 5).await;
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (0, 0, 0), "{counts:?}");
    let counts = ended(&running, MESSAGES).await;
    assert_one_effect_each(&bench, MESSAGES).await;
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0), "{counts:?}");
    assert!(failures.load(Ordering::SeqCst) >= MESSAGES);
}

/// S3: a copy of what is being handled waits for a while, and comes back later.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_what_is_in_progress_is_deferred_and_counts_no_attempt() {
    let bench = Bench::<Postgres>::new().await;
    let (entered, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let strategy = bench.strategy().lock_timeout(Duration::from_millis(100));
    let running = {
        let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
        let handler = move |mut tx: Tx<Postgres>| {
            let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
            async move {
                Postgres::run(&mut tx, "INSERT INTO effects VALUES ('a')").await?;
                entered.add_permits(1);
                go_on.acquire().await.unwrap().forget();
                Ok::<(), HandlerError>(())
            }
        };
        bench.start_with(strategy, handler).await
    };
    bench.publish(&running, "a").await;
    entered.acquire().await.unwrap().forget();
    bench.publish(&running, "a").await;
    let counts = counts_when(&running, |counts| counts.deferred >= 2).await;
    assert_eq!(counts.fetched, counts.deferred + 1);
    go_on.add_permits(1);
    let counts = ended(&running, 2).await;
    assert_eq!((counts.succeeded, counts.duplicates.total(), counts.retried), (1, 1, 0));
    assert_one_effect_each(&bench, 1).await;
}
