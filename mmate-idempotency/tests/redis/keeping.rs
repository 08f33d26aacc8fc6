//! What may be relied on.

use mmate_idempotency::store::{Promises, StoreErrorKind};
use mmate_idempotency::{RedisStore, Store};
use mmate_test_support::{Redis, RedisCluster, RedisSentinel};

use crate::log::logged;

async fn store_with(config: &str) -> (RedisStore, Redis) {
    let redis = Redis::options().config(config).start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    (store, redis)
}

const DURABLE: &str = "appendonly yes\nappendfsync always\nmaxmemory-policy noeviction";

fn promises(durable: bool, complete: bool) -> Promises {
    Promises { durable, shared: true, complete }
}

/// S53
#[tokio::test]
async fn nothing_is_promised_that_was_not_looked_at() {
    let (store, _redis) = store_with(DURABLE).await;
    let store = store.assume_durable();
    assert_eq!(store.promises(), promises(false, false));
    store.migrate().await.unwrap();
    assert_eq!(store.promises(), promises(true, true));
}

/// S53
#[tokio::test]
async fn nothing_is_promised_to_be_durable_that_was_not_asked_for() {
    let (store, _redis) = store_with(DURABLE).await;
    store.migrate().await.unwrap();
    assert_eq!(store.promises(), promises(false, true));
}

/// S44
#[tokio::test]
async fn a_server_that_forgets_is_refused_by_who_relies_on_it_and_served_otherwise() {
    for (flaw, told, complete) in [
        ("appendonly no", "appendonly no", true),
        ("appendonly yes\nappendfsync everysec", "appendfsync is not always", true),
        (
            "appendfsync always\nmaxmemory 100mb\nmaxmemory-policy volatile-ttl",
            "maxmemory-policy is not noeviction",
            false,
        ),
    ] {
        let (store, _redis) = store_with(flaw).await;
        let error = store.clone().assume_durable().migrate().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Permanent, "{flaw}: {error}");
        assert!(error.to_string().contains(told), "{flaw}: {error}");
        assert!(!store.clone().assume_durable().promises().durable);
        store.migrate().await.unwrap();
        assert_eq!(store.promises(), promises(false, complete), "{flaw}");
    }
}

#[tokio::test]
async fn what_a_server_does_not_show_is_taken_on_word() {
    let (store, redis) = store_with(DURABLE).await;
    redis.ask("ACL SETUSER default -config -info").unwrap();
    store.migrate().await.unwrap();
    assert_eq!(store.promises(), promises(false, false));
    let store = store.assume_durable();
    store.migrate().await.unwrap();
    assert_eq!(store.promises(), promises(true, true));
}

#[tokio::test]
async fn behind_sentinels_nothing_is_durable() {
    let mut redis = RedisSentinel::start(1).unwrap();
    redis.master().ask("CONFIG SET appendfsync always").unwrap();
    let store = RedisStore::sentinel(RedisSentinel::MASTER_NAME, redis.urls()).await.unwrap();
    let store = store.assume_durable();
    store.migrate().await.unwrap();
    assert_eq!(store.promises(), promises(false, true));
}

#[tokio::test]
async fn a_cluster_is_as_good_as_its_weakest_node_and_never_durable() {
    let mut cluster = RedisCluster::start(3).unwrap();
    let store = RedisStore::cluster(cluster.urls()).await.unwrap().assume_durable();
    store.migrate().await.unwrap();
    assert_eq!(store.promises(), promises(false, true));
    cluster.node(1).ask("CONFIG SET maxmemory 100mb").unwrap();
    cluster.node(1).ask("CONFIG SET maxmemory-policy allkeys-lru").unwrap();
    cluster.node(2).ask("CONFIG SET appendonly no").unwrap();
    let told = store.migrate().await.unwrap_err().to_string();
    assert!(told.contains("appendonly no") && told.contains("not noeviction"), "{told}");
    assert_eq!(store.promises(), promises(false, false));
}

#[test]
fn a_server_that_forgets_is_warned_of_at_the_start() {
    logged(async |log| {
        let (good, _good) = store_with(DURABLE).await;
        good.migrate().await.unwrap();
        assert_eq!(log.warnings(), Vec::<String>::new());
        let (bad, redis) = store_with("appendonly no").await;
        bad.migrate().await.unwrap();
        let told = log.warnings();
        assert_eq!(told.len(), 1, "{told:?}");
        for part in ["may forget", "appendonly no", &format!("127.0.0.1:{}", redis.port())] {
            assert!(told[0].contains(part), "{part:?} is not in {told:?}");
        }
    });
}
