//! A Redis that forgot.

use std::sync::Arc;
use std::time::Duration;

use mmate_idempotency::{RedisStore, Tracked};
use mmate_test_support::Redis;
use tokio::sync::Semaphore;

use crate::house::{House, counts_when, ended};

/// S46, F39: what was done runs again when another copy comes, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_copies_run_again_and_nothing_is_lost() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let house = House::new();
    // What this process knows of itself would hide it.
    let strategy = Tracked::new(store).recall(Duration::ZERO);
    let running = house.start(strategy, async || {}).await;
    for round in 1..=3_u64 {
        for number in 0..20 {
            house.publish(&running, &format!("{number}")).await;
        }
        let counts = counts_when(&running, |counts| ended(counts) == 20 * round).await;
        let expected = if round == 3 { (40, 20) } else { (20, 20 * (round - 1)) };
        assert_eq!((counts.succeeded, counts.duplicates.total()), expected, "round {round}");
        if round == 2 {
            redis.ask("FLUSHALL").unwrap();
        }
    }
    assert_eq!((house.effects().len(), house.doubles()), (20, 20));
    running.stop().await.unwrap();
}

/// S46, F39: the record goes while the handler runs. That it is done cannot be recorded, so it is
/// not acknowledged, and runs a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_deleted_under_a_handler_costs_a_second_run_and_no_message() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let house = House::new();
    let (inside, goes_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let running = {
        let (inside, goes_on) = (Arc::clone(&inside), Arc::clone(&goes_on));
        let script = move || {
            let (inside, goes_on) = (Arc::clone(&inside), Arc::clone(&goes_on));
            async move {
                inside.add_permits(1);
                goes_on.acquire().await.unwrap().forget();
            }
        };
        house.start(Tracked::new(store), script).await
    };
    house.publish(&running, "a").await;
    inside.acquire().await.unwrap().forget();
    let key = redis.ask("KEYS *").unwrap();
    assert!(key.ends_with(":a"), "{key}");
    assert_eq!(redis.ask(&format!("DEL {key}")).unwrap(), "1");
    goes_on.add_permits(10);
    let counts = counts_when(&running, |counts| ended(counts) == 1).await;
    assert_eq!((counts.succeeded, counts.dead_lettered), (1, 0), "{counts:?}");
    assert_eq!(house.effects_of("a"), 2);
    running.stop().await.unwrap();
}
