//! Every store passes the conformance suite.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use mmate_idempotency::conformance::Harness;
use mmate_idempotency::protocol::{Retention, Time};
use mmate_idempotency::store::ManualClock;
use mmate_idempotency::{MemoryStore, Store};

struct OnMemory {
    store: MemoryStore,
    clock: ManualClock,
}

#[async_trait::async_trait]
impl Harness for OnMemory {
    async fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
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
}

mod memory {
    use super::*;

    fn harness(retention: Retention) -> OnMemory {
        let clock = ManualClock::new();
        let store = MemoryStore::new().capacity(10_000).retention(retention).clock(clock.clone());
        OnMemory { store, clock }
    }

    mmate_idempotency::store_conformance!(super::harness);
}

mod memory_in_parts {
    use super::*;

    fn harness(retention: Retention) -> OnMemory {
        let clock = ManualClock::new();
        let store = MemoryStore::new().retention(retention).clock(clock.clone());
        OnMemory { store, clock }
    }

    mmate_idempotency::store_conformance!(super::harness);
}

#[cfg(feature = "postgres")]
mod postgres;

#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "mysql")]
mod mysql;

#[cfg(feature = "sqlite")]
mod earlier;
