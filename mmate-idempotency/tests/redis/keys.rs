//! Keys that are apart, and how long they stay.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use mmate_idempotency::protocol::{Claim, Held, Retention};
use mmate_idempotency::store::{ClaimRequest, Claimant, ManualClock, RecordKey};
use mmate_idempotency::{RedisStore, Store};
use mmate_test_support::{Redis, unique};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::house::{LIMIT, done, granted, request};

/// S36, F48: what is claimed under one scope and id is free under every other.
#[tokio::test]
async fn no_scope_and_id_are_those_of_another() {
    let store = RedisStore::connect(mmate_test_support::redis_url()).await.unwrap();
    let store = store.prefix(unique("keys")).unwrap();
    let text = prop_oneof!["[:{}0-3ab]{1,5}", "[ -~]{1,8}", "\\PC{1,4}"];
    let pairs = proptest::collection::vec((text.clone(), text), 800);
    let pairs = pairs.new_tree(&mut TestRunner::deterministic()).unwrap().current();
    let mut seen = HashSet::new();
    for (scope, id) in pairs {
        let Ok(key) = RecordKey::new(scope.as_str(), &id) else { continue };
        let id = key.id().to_owned();
        let claim = store.claim(&ClaimRequest::new(key, Claimant::default(), LIMIT)).await.unwrap();
        let is_new = seen.insert((scope.clone(), id.clone()));
        assert_eq!(matches!(claim, Claim::Granted(_)), is_new, "{scope:?} {id:?}: {claim:?}");
    }
    assert!(seen.len() > 600, "{}", seen.len());
}

/// F50
#[tokio::test]
async fn stores_with_two_prefixes_share_nothing() {
    let store = RedisStore::connect(mmate_test_support::redis_url()).await.unwrap();
    let [one, other] = [unique("one"), unique("other")].map(|prefix| store.clone().prefix(prefix));
    done(&one.unwrap(), "a").await;
    granted(&other.unwrap(), "a").await;
    for prefix in ["", "a:b", "a{b}", "*", "a\r\nFLUSHALL"] {
        let error = store.clone().prefix(prefix).unwrap_err();
        assert!(error.to_string().contains("cannot be the beginning of keys"), "{error}");
    }
}

/// What stands in the server is one hash, which somebody who looks can read.
#[tokio::test]
async fn a_record_is_one_hash_that_can_be_read() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let key = RecordKey::new("inventory/reserve", "order-4711").unwrap();
    let claimant =
        Claimant { service: "inventory", subscription: "reserve", instance: "inventory-1" };
    let mut request = ClaimRequest::new(key, claimant, LIMIT);
    (request.correlation_id, request.message_type) = (Some("conversation"), "OrderCreated");
    assert!(matches!(store.claim(&request).await.unwrap(), Claim::Granted(_)));
    assert_eq!(redis.ask("KEYS *").unwrap(), "mmate:{}:17:inventory/reserve:order-4711");
    let field = |name: &str| {
        redis.ask(&format!("HGET mmate:{{}}:17:inventory/reserve:order-4711 {name}")).unwrap()
    };
    for (name, value) in [
        ("status", "in-progress"),
        ("attempt", "1"),
        ("service_name", "inventory"),
        ("subscription", "reserve"),
        ("instance", "inventory-1"),
        ("correlation_id", "conversation"),
        ("message_type", "OrderCreated"),
    ] {
        assert_eq!(field(name), value, "{name}");
    }
}

/// S39, S40: nothing needs to purge.
#[tokio::test]
async fn records_whose_time_is_over_go_by_themselves() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let store = store.window(Duration::from_millis(300));
    let lease = Duration::from_millis(100);
    let mut abandoned = request("abandoned");
    abandoned.lease = lease;
    store.claim(&abandoned).await.unwrap();
    done(&store, "done").await;
    let permit = granted(&store, "given back").await;
    assert_eq!(store.release(&permit).await.unwrap(), Held::Yes);
    assert_eq!(redis.ask("DBSIZE").unwrap(), "3");
    assert_eq!(store.purge(100).await.unwrap(), 0);
    let began = Instant::now();
    while redis.ask("DBSIZE").unwrap() != "0" {
        assert!(began.elapsed() < LIMIT, "{}", redis.ask("KEYS *").unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_to_be_kept_for_ever_has_no_end() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let permit = granted(&store, "a").await;
    assert_ne!(redis.ask("PTTL mmate:{}:5:scope:a").unwrap(), "-1");
    let store = store.retention(Retention::unlimited());
    assert_eq!(store.complete(&permit, None).await.unwrap(), Held::Yes);
    assert_eq!(redis.ask("PTTL mmate:{}:5:scope:a").unwrap(), "-1");
    let endless = store.retention(Retention::window(Duration::MAX));
    done(&endless, "b").await;
    assert!(matches!(endless.claim(&request("b")).await.unwrap(), Claim::Duplicate(_)));
}

/// S20: also where the record was forgotten.
#[tokio::test]
async fn the_fence_rises_although_the_record_is_gone() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let mut highest = 0;
    for _ in 0..5 {
        for _ in 0..3 {
            let permit = granted(&store, "a").await;
            assert!(permit.fence() > highest, "{} after {highest}", permit.fence());
            highest = permit.fence();
            store.release(&permit).await.unwrap();
        }
        redis.ask("FLUSHALL").unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// S21: a lease ends by the server's clock.
#[tokio::test]
async fn the_clock_is_the_servers() {
    let store = RedisStore::connect(mmate_test_support::redis_url()).await.unwrap();
    let store = store.prefix(unique("clock")).unwrap();
    let mut first = request("a");
    first.lease = Duration::from_millis(50);
    assert!(matches!(store.claim(&first).await.unwrap(), Claim::Granted(_)));
    let began = Instant::now();
    loop {
        match store.claim(&request("a")).await.unwrap() {
            Claim::Granted(grant) => {
                assert!(grant.taken_over);
                break;
            }
            Claim::Busy { remaining } => assert!(remaining <= Duration::from_millis(50)),
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(began.elapsed() > Duration::from_millis(40), "{:?}", began.elapsed());
}

/// S19, F40: the clock leaps, somebody takes over, and who held it before is refused.
#[tokio::test]
async fn after_a_leap_of_the_clock_a_stale_complete_is_refused() {
    let clock = ManualClock::new();
    let store = RedisStore::connect(mmate_test_support::redis_url()).await.unwrap();
    let store = store.prefix(unique("leap")).unwrap().clock(clock.clone());
    let stale = granted(&store, "a").await;
    clock.advance(Duration::from_secs(3600));
    let newer = granted(&store, "a").await;
    assert_eq!((newer.fence(), newer.attempt()), (stale.fence() + 1, 2));
    assert_eq!(store.complete(&stale, None).await.unwrap(), Held::Refused);
    assert_eq!(store.heartbeat(&stale, LIMIT).await.unwrap(), Held::Refused);
    assert_eq!(store.release(&stale).await.unwrap(), Held::Refused);
    assert_eq!(store.complete(&newer, None).await.unwrap(), Held::Yes);
    assert!(matches!(store.claim(&request("a")).await.unwrap(), Claim::Duplicate(_)));
}
