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

#[cfg(feature = "sqlite")]
mod sqlite {
    use mmate_idempotency::SqliteStore;
    use tempfile::TempDir;

    use super::*;

    struct OnSqlite {
        folder: TempDir,
        retention: Retention,
        clock: ManualClock,
    }

    #[async_trait::async_trait]
    impl Harness for OnSqlite {
        async fn store(&self) -> Arc<dyn Store> {
            let store = SqliteStore::open(self.folder.path().join("records.db")).await.unwrap();
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
    }

    fn harness(retention: Retention) -> OnSqlite {
        OnSqlite { folder: tempfile::tempdir().unwrap(), retention, clock: ManualClock::new() }
    }

    mmate_idempotency::store_conformance!(super::harness);
}
