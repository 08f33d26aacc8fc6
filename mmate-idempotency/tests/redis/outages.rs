//! A Redis that is away for a while.

use std::time::{Duration, Instant};

use mmate_idempotency::protocol::Claim;
use mmate_idempotency::{RedisStore, Store, Tracked};
use mmate_test_support::Redis;

use crate::counted::Counted;
use crate::house::{House, claim_when_it_answers, counts_when, ended, granted, request};
use crate::log::logged;
use crate::proxy::Proxy;

/// How long it is away; as long as the faults page says if there is time for that.
fn away() -> Duration {
    let long = std::env::var_os("MMATE_TEST_LONG").is_some_and(|long| !long.is_empty());
    Duration::from_secs(if long { 60 } else { 10 })
}

/// S42, F37: messages come while Redis is away. They are held back, nothing is lost, nobody asks in a
/// loop, and the log has a line a second at most.
fn away_for_a_while(takes_away: impl FnOnce(&mut Redis), brings_back: impl FnOnce(&mut Redis)) {
    logged(async |log| {
        let mut redis = Redis::start().unwrap();
        let store = RedisStore::connect(redis.url()).await.unwrap();
        let counted = Counted::new(store);
        let calls = || counted.calls(["claim", "heartbeat", "complete", "release"]);
        let house = House::new();
        let patient = Tracked::new(counted.clone()).outage_patience(Duration::from_secs(600));
        let running = house.start(patient, async || {}).await;
        house.publish(&running, "before").await;
        counts_when(&running, |counts| counts.succeeded == 1).await;

        let told_before = log.warnings().len();
        takes_away(&mut redis);
        let (began, calls_before) = (Instant::now(), calls());
        for number in 0..40 {
            house.publish(&running, &format!("{number}")).await;
        }
        tokio::time::sleep(away()).await;
        let counts = running.stats().total();
        assert_eq!((counts.in_flight, ended(&counts)), (8, 1), "{counts:?}");
        assert_eq!((counts.retried, counts.deferred), (0, 0), "{counts:?}");
        let asked = calls() - calls_before;
        // Eight messages, each after pauses that grow to two seconds.
        let allowed = 8 * (8 + away().as_secs() as usize);
        assert!(asked <= allowed, "{asked} calls are a hot loop");
        let told = log.warnings().split_off(told_before);
        assert!(told.len() <= began.elapsed().as_secs() as usize + 1, "{told:?}");
        assert!(!told.is_empty());

        brings_back(&mut redis);
        let back = Instant::now();
        let counts = counts_when(&running, |counts| ended(counts) == 41).await;
        assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
        assert_eq!((counts.succeeded, counts.dead_lettered), (41, 0), "{counts:?}");
        assert_eq!((house.effects().len(), house.doubles()), (41, 0));
        running.stop().await.unwrap();
    });
}

#[test]
fn while_connections_are_refused_messages_are_held_back() {
    away_for_a_while(Redis::kill, |redis| redis.start_again().unwrap());
}

#[test]
fn while_nothing_answers_messages_are_held_back() {
    away_for_a_while(|redis| redis.pause(), |redis| redis.resume());
}

/// Whoever asks all the time does not make connections all the time.
#[tokio::test]
async fn connections_are_tried_with_pauses() {
    let mut redis = Redis::start().unwrap();
    let proxy = Proxy::to(redis.port());
    let store = RedisStore::connect(proxy.url()).await.unwrap();
    granted(&store, "before").await;
    let before = proxy.connections();
    redis.kill();
    let (began, mut calls) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(2) {
        store.claim(&request("a")).await.unwrap_err();
        calls += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let connections = proxy.connections() - before;
    assert!(calls > 50, "{calls}: who comes in a pause is told at once");
    // The pauses are 25 ms at least, and grow.
    assert!((2..=10).contains(&connections), "{connections} connections for {calls} calls");
    redis.start_again().unwrap();
    assert!(matches!(claim_when_it_answers(&store, &request("a")).await, Claim::Granted(_)));
}
