//! The conformance suite over Redis.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mmate_idempotency::conformance::Harness;
use mmate_idempotency::protocol::{Retention, Time};
use mmate_idempotency::store::ManualClock;
use mmate_idempotency::{RedisStore, Store};
use mmate_test_support::{Redis, RedisCluster, unique};
use tokio::sync::Mutex;

/// Records under a prefix of their own.
struct OnRedis {
    place: Place,
    prefix: String,
    retention: Retention,
    clock: ManualClock,
}

enum Place {
    /// One server, which the tests of a run share.
    Shared,
    /// A server that writes everything to its disk first.
    Durable(Box<Mutex<Redis>>),
    /// Three masters.
    Cluster,
}

fn cluster() -> &'static RedisCluster {
    static CLUSTER: OnceLock<RedisCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| RedisCluster::start(3).unwrap())
}

impl OnRedis {
    fn new(place: Place, retention: Retention) -> Self {
        Self { place, prefix: unique("conformance"), retention, clock: ManualClock::new() }
    }
}

#[async_trait::async_trait]
impl Harness for OnRedis {
    async fn store(&self) -> Arc<dyn Store> {
        let store = match &self.place {
            Place::Shared => RedisStore::connect(mmate_test_support::redis_url()).await.unwrap(),
            Place::Durable(redis) => {
                let url = redis.lock().await.url();
                RedisStore::connect(url).await.unwrap().assume_durable()
            }
            Place::Cluster => RedisStore::cluster(cluster().urls()).await.unwrap(),
        };
        let store = store.prefix(&self.prefix).unwrap();
        let store = store.retention(self.retention).clock(self.clock.clone());
        store.migrate().await.unwrap();
        Arc::new(store)
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn turn_back(&self, by: Duration) {
        self.clock.turn_back(by);
    }

    async fn now(&self) -> Time {
        self.clock.now()
    }

    fn forgets_by_itself(&self) -> bool {
        true
    }

    async fn restart(&self) {
        let Place::Durable(redis) = &self.place else { panic!("only one promises to be durable") };
        let mut redis = redis.lock().await;
        redis.kill();
        redis.start_again().unwrap();
    }
}

mod on_a_server {
    use super::*;

    fn harness(retention: Retention) -> OnRedis {
        OnRedis::new(Place::Shared, retention)
    }

    mmate_idempotency::store_conformance!(super::harness);
}

mod on_a_durable_server {
    use super::*;

    fn harness(retention: Retention) -> OnRedis {
        let redis = Redis::options().config("appendfsync always").start().unwrap();
        OnRedis::new(Place::Durable(Box::new(Mutex::new(redis))), retention)
    }

    mmate_idempotency::store_conformance!(super::harness);

    #[tokio::test]
    async fn it_promises_everything() {
        let promises = harness(mmate_idempotency::conformance::RETENTION).store().await.promises();
        assert!(promises.durable && promises.shared && promises.complete, "{promises:?}");
    }
}

mod in_a_cluster {
    use super::*;

    fn harness(retention: Retention) -> OnRedis {
        OnRedis::new(Place::Cluster, retention)
    }

    mmate_idempotency::store_conformance!(super::harness);
}
