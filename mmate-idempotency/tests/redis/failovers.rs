//! Servers that take over.

use std::time::Duration;

use mmate_idempotency::protocol::Claim;
use mmate_idempotency::{RedisStore, Store, Tracked};
use mmate_test_support::{Redis, RedisCluster, RedisSentinel};

use crate::house::{House, claim_when_it_answers, counts_when, done, ended, granted, request};

/// Waits until the replica has what the master has now. `WAIT` would be about the writes of its own
/// connection only.
async fn until_replicated(master: &Redis) {
    let offset_after = |text: &str, name: &str| -> Option<u64> {
        let (_, rest) = text.split_once(name)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let info = || master.ask("INFO replication").unwrap();
    let wanted = offset_after(&info(), "master_repl_offset:").unwrap();
    let reaching = async {
        while offset_after(&info(), ",offset=").is_none_or(|reached| reached < wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reaching).await.expect("the replica follows");
}

/// S42: the master dies, the replica takes over, and the service goes on with its records.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_master_is_killed_the_service_goes_on_with_the_replica() {
    let mut redis = RedisSentinel::start(1).unwrap();
    let store = RedisStore::sentinel(RedisSentinel::MASTER_NAME, redis.urls()).await.unwrap();
    let store = store.response_timeout(Duration::from_secs(1));
    let house = House::new();
    let running = house.start(Tracked::new(store), async || {}).await;
    for number in 0..50 {
        house.publish(&running, &format!("{number}")).await;
    }
    counts_when(&running, |counts| counts.succeeded == 50).await;
    until_replicated(redis.master()).await;
    redis.master().kill();
    for number in 0..100 {
        house.publish(&running, &format!("{number}")).await;
    }
    redis.wait_for_failover();
    let counts = counts_when(&running, |counts| ended(counts) == 150).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (100, 50), "{counts:?}");
    assert_eq!((house.effects().len(), house.doubles()), (100, 0));
    running.stop().await.unwrap();
}

/// The old master comes back as a replica; who was connected to it does not stay there.
#[tokio::test]
async fn who_is_left_with_a_replica_finds_the_master() {
    let mut redis = RedisSentinel::start(1).unwrap();
    let store = RedisStore::sentinel(RedisSentinel::MASTER_NAME, redis.urls()).await.unwrap();
    done(&store, "a").await;
    until_replicated(redis.master()).await;
    redis.fail_over();
    let claim = claim_when_it_answers(&store, &request("a")).await;
    assert!(matches!(claim, Claim::Duplicate(_)), "{claim:?}");
    assert!(matches!(claim_when_it_answers(&store, &request("b")).await, Claim::Granted(_)));
}

/// A node without a replica is gone, and comes back.
#[tokio::test]
async fn a_cluster_goes_on_when_its_node_comes_back() {
    let mut cluster = RedisCluster::start(3).unwrap();
    let store = RedisStore::cluster(cluster.urls()).await.unwrap();
    let store = store.response_timeout(Duration::from_secs(2));
    let ids: Vec<_> = (0..30).map(|number| number.to_string()).collect();
    for id in &ids {
        done(&store, id).await;
    }
    for node in cluster.nodes() {
        assert_ne!(node.ask("DBSIZE").unwrap(), "0", "records are spread over the nodes");
    }
    cluster.node(1).kill();
    let mut failed = 0;
    for id in &ids {
        failed += usize::from(store.claim(&request(id)).await.is_err());
        if failed > 0 {
            break;
        }
    }
    assert!(failed > 0, "some records were there");
    cluster.node(1).start_again().unwrap();
    for id in &ids {
        let claim = claim_when_it_answers(&store, &request(id)).await;
        assert!(matches!(claim, Claim::Duplicate(_)), "{id}: {claim:?}");
    }
    granted(&store, "new").await;
}
