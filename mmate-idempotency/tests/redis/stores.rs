//! The conformance suite over Redis.

use std::sync::Arc;
use std::time::Duration;

use mmate_idempotency::conformance::Harness;
use mmate_idempotency::protocol::{Retention, Time};
use mmate_idempotency::store::ManualClock;
use mmate_idempotency::{RedisStore, Store};
use mmate_test_support::unique;

/// One server, which the tests of a run share.
struct OnServer {
    prefix: String,
    retention: Retention,
    clock: ManualClock,
}

fn harness(retention: Retention) -> OnServer {
    OnServer { prefix: unique("conformance"), retention, clock: ManualClock::new() }
}

#[async_trait::async_trait]
impl Harness for OnServer {
    async fn store(&self) -> Arc<dyn Store> {
        let store = RedisStore::connect(mmate_test_support::redis_url()).await.unwrap();
        let store = store.prefix(&self.prefix).unwrap();
        let store = store.retention(self.retention).clock(self.clock.clone());
        store.migrate().await.unwrap();
        Arc::new(store)
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn now(&self) -> Time {
        self.clock.now()
    }

    fn forgets_by_itself(&self) -> bool {
        true
    }
}

mmate_idempotency::store_conformance!(super::harness);
