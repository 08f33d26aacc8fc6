//! Servers and connections that end.

use std::time::{Duration, Instant};

use mmate_core::HandlerError;
use mmate_idempotency::{Transactional, Tx};
use mmate_test_support::{PostgreSql, unique};
use sqlx::Postgres;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::load::{assert_one_effect_each, counts_when, ended, slowly};
use crate::bench::{Bench, done};
use crate::place::Place;
use crate::place::Schema;

/// F41
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_under_load_loses_and_doubles_nothing() {
    const MESSAGES: usize = 600;
    let mut server = PostgreSql::options().config("fsync = on").start().unwrap();
    let bench = Bench::<Postgres>::at(Schema::on(&server.url()).await).await;
    let running = bench.start(slowly(Duration::from_millis(5))).await;
    for n in 0..MESSAGES {
        bench.publish(&running, &format!("{n}")).await;
    }
    for killed_at in [100, 300] {
        counts_when(&running, |counts| counts.succeeded >= killed_at).await;
        server.kill();
        let before = running.stats().total().succeeded;
        server.start_again().unwrap();
        let ready = Instant::now();
        counts_when(&running, |counts| counts.succeeded > before + 20).await;
        assert!(ready.elapsed() < Duration::from_secs(3), "{:?}", ready.elapsed());
    }
    let counts = ended(&running, MESSAGES).await;
    assert_one_effect_each(&bench, MESSAGES).await;
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0), "{counts:?}");
}

/// F43: oftener than each second, so that it hits more.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_ended_at_random_lose_and_double_nothing() {
    const MESSAGES: usize = 400;
    let bench = Bench::<Postgres>::new().await;
    let name = unique("ended");
    let options: PgConnectOptions = bench.home.0.parse().unwrap();
    let options = options.application_name(&name);
    let pool = PgPoolOptions::new().max_connections(6).connect_with(options).await.unwrap();
    let strategy = Transactional::new(pool);
    let running = bench.start_with(strategy, slowly(Duration::from_millis(20))).await;
    for n in 0..MESSAGES {
        bench.publish(&running, &format!("{n}")).await;
    }
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
         WHERE application_name = '{name}' ORDER BY random() LIMIT 2) AS chosen"
    );
    let (mut ended_connections, messages) = (0, u64::try_from(MESSAGES).unwrap());
    while running.stats().total().succeeded < messages {
        ended_connections += bench.number(&end).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let counts = ended(&running, MESSAGES).await;
    assert!(ended_connections > 10, "{ended_connections}");
    assert_one_effect_each(&bench, MESSAGES).await;
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0), "{counts:?}");
}

/// F44: a handler that forgets its transaction does not keep others waiting for ever.
#[tokio::test]
async fn a_transaction_that_is_idle_for_too_long_is_a_failed_attempt() {
    let bench = Bench::<Postgres>::new().await;
    let strategy = bench.strategy().idle_timeout(Duration::from_millis(100));
    let running = bench
        .start_with(strategy, async |mut tx: Tx<Postgres>| {
            Postgres::run(&mut tx, "INSERT INTO effects VALUES ('x')").await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok::<(), HandlerError>(())
        })
        .await;
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.retried, counts.dead_lettered, counts.succeeded), (2, 1, 0));
    assert_eq!((bench.effects().await, bench.records().await), (0, 0));
    let letter = &bench.broker.dead_letters("s.q")[0];
    let error = letter.headers.text("x-mmate-error").unwrap();
    assert!(error.contains("idle-in-transaction timeout"), "{error}");
}

/// What `COMMIT` makes a rollback of is not acknowledged.
#[tokio::test]
async fn a_failure_that_the_handler_passes_over_commits_nothing_and_is_told() {
    let bench = Bench::<Postgres>::new().await;
    let running = bench
        .start(async |mut tx: Tx<Postgres>| {
            Postgres::run(&mut tx, "INSERT INTO effects VALUES ('x')").await?;
            Postgres::run(&mut tx, "SELECT 1 / 0").await.unwrap_err();
            Ok::<(), HandlerError>(())
        })
        .await;
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (0, 2, 1));
    assert_eq!((bench.effects().await, bench.records().await), (0, 0));
    let letter = &bench.broker.dead_letters("s.q")[0];
    let error = letter.headers.text("x-mmate-error").unwrap();
    assert!(error.contains("a statement of the handler failed"), "{error}");
    bench.assert_no_connection_is_dirty().await;
}

/// A transaction of the handler's own, in place of the one it was given.
#[tokio::test]
async fn a_handler_that_begins_another_transaction_is_told() {
    let bench = Bench::<Postgres>::new().await;
    let running = bench
        .start(async |mut tx: Tx<Postgres>| {
            let sql = "ROLLBACK; BEGIN; INSERT INTO effects VALUES ('x')";
            Postgres::run(&mut tx, sql).await?;
            Ok::<(), HandlerError>(())
        })
        .await;
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (0, 2, 1));
    assert_eq!((bench.effects().await, bench.records().await), (0, 0));
    let letter = &bench.broker.dead_letters("s.q")[0];
    let error = letter.headers.text("x-mmate-error").unwrap();
    assert!(error.contains("ended its transaction by itself"), "{error}");
    bench.assert_no_connection_is_dirty().await;
}
