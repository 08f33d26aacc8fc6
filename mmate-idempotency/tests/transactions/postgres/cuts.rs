//! Commits whose answer gets lost.

use std::time::{Duration, Instant};

use mmate_test_support::postgres_url;
use sqlx::Postgres;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::load::{assert_one_effect_each, ended, slowly};
use super::proxy::{Proxy, silent_at_the_first_begin};
use crate::bench::Bench;
use mmate_idempotency::Transactional;

/// S16, F42
#[tokio::test(flavor = "multi_thread")]
async fn of_commits_that_are_cut_none_loses_and_none_doubles() {
    let is_long = std::env::var("MMATE_TEST_LONG").is_ok_and(|value| value == "1");
    let cuts = if is_long { 1000 } else { 100 };
    let bench = Bench::<Postgres>::new().await;
    let server: PgConnectOptions = postgres_url().parse().unwrap();
    let server = format!("{}:{}", server.get_host(), server.get_port()).parse().unwrap();
    let proxy = Proxy::start(server, cuts).await;
    let options: PgConnectOptions = bench.home.0.parse().unwrap();
    let through = options.host("127.0.0.1").port(proxy.address().port());
    let pool = PgPoolOptions::new().max_connections(4).connect_with(through).await.unwrap();
    let strategy = Transactional::new(pool);
    let running = bench.start_with(strategy, slowly(Duration::from_millis(1))).await;
    let mut messages = 0;
    while proxy.left() > 0 {
        for _ in 0..20 {
            bench.publish(&running, &format!("{messages}")).await;
            messages += 1;
        }
        ended(&running, messages).await;
    }
    let counts = ended(&running, messages).await;
    assert_one_effect_each(&bench, messages).await;
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0), "{counts:?}");
    let [before, within, after] = proxy.counts();
    assert_eq!(before + within + after, cuts);
    assert!(before.min(within).min(after) > cuts / 20, "{before}, {within}, {after}");
}

/// S45: the answer to `BEGIN` never comes. The connection is given up, and its place in the pool is
/// free for another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_begin_without_an_answer_takes_no_place_in_the_pool() {
    let bench = Bench::<Postgres>::new().await;
    let server: PgConnectOptions = postgres_url().parse().unwrap();
    let server = format!("{}:{}", server.get_host(), server.get_port()).parse().unwrap();
    let proxy = silent_at_the_first_begin(server).await;
    let options: PgConnectOptions = bench.home.0.parse().unwrap();
    let through = options.host("127.0.0.1").port(proxy.port());
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(2))
        .connect_with(through)
        .await
        .unwrap();
    let strategy = Transactional::new(pool).answer_timeout(Duration::from_millis(500));
    let running = bench.start_with(strategy, slowly(Duration::ZERO)).await;
    let begin = Instant::now();
    for n in 0..5 {
        bench.publish(&running, &format!("{n}")).await;
    }
    let counts = ended(&running, 5).await;
    assert_one_effect_each(&bench, 5).await;
    assert_eq!((counts.succeeded, counts.dead_lettered), (5, 0), "{counts:?}");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(20), "the silent connection was in the way for {took:?}");
}
