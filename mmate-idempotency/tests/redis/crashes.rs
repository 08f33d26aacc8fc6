//! A Redis that is killed.

use std::time::Duration;

use mmate_core::Running;
use mmate_idempotency::{RedisStore, Tracked};
use mmate_test_support::Redis;

use crate::house::{House, counts_when, ended};

const MESSAGES: u64 = 300;
const KILLS: u64 = 3;

/// Handles messages while their Redis is killed several times, then shows all of them once more; and
/// how often each had its effect.
async fn killed_under_load(config: &str) -> (House, Running) {
    let mut redis = Redis::options().config(config).start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let house = House::new();
    let store = store.response_timeout(Duration::from_millis(500));
    // What this process knows of itself would hide what the store has forgotten.
    let strategy = Tracked::new(store).recall(Duration::ZERO);
    let slow = || tokio::time::sleep(Duration::from_millis(5));
    let running = house.start(strategy.lease(Duration::from_secs(2)), slow).await;
    for number in 0..MESSAGES {
        house.publish(&running, &format!("{number}")).await;
    }
    for kill in 1..=KILLS {
        counts_when(&running, |counts| counts.succeeded >= MESSAGES * kill / (KILLS + 1)).await;
        redis.kill();
        redis.start_again().unwrap();
    }
    let counts = counts_when(&running, |counts| ended(counts) == MESSAGES).await;
    assert_eq!(counts.dead_lettered, 0, "{counts:?}");
    for number in 0..MESSAGES {
        house.publish(&running, &format!("{number}")).await;
    }
    counts_when(&running, |counts| ended(counts) == 2 * MESSAGES).await;
    assert_eq!(house.effects().len() as u64, MESSAGES, "lost");
    (house, running)
}

/// F36. With `appendfsync everysec` that is so as long as the disk keeps up.
#[tokio::test(flavor = "multi_thread")]
async fn with_an_append_only_file_a_kill_loses_nothing_and_doubles_nothing() {
    let (house, running) = killed_under_load("appendonly yes\nappendfsync always").await;
    assert_eq!(house.doubles(), 0);
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.total()), (MESSAGES, MESSAGES), "{counts:?}");
    running.stop().await.unwrap();
}

/// F36: what was done before the last kill has no record any more.
#[tokio::test(flavor = "multi_thread")]
async fn without_one_a_kill_loses_nothing_and_doubles_what_was_done_before() {
    let (house, running) = killed_under_load("appendonly no").await;
    let doubles = house.doubles() as u64;
    assert!(doubles >= MESSAGES * KILLS / (KILLS + 1), "{doubles} of {MESSAGES}");
    assert!(doubles < MESSAGES, "what was done after the last kill is known: {doubles}");
    running.stop().await.unwrap();
}
