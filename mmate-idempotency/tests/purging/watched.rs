//! A store whose purges are counted, and may be slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::{ClaimRequest, Promises};
use mmate_idempotency::{Permit, Store, StoreError};

#[derive(Clone)]
pub(crate) struct Watched {
    store: Arc<dyn Store>,
    /// So much longer does a purge take.
    pub(crate) delay: Duration,
    pub(crate) purges: Arc<AtomicU64>,
    pub(crate) removed: Arc<AtomicU64>,
    pub(crate) failed: Arc<AtomicU64>,
}

impl Watched {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            delay: Duration::ZERO,
            purges: Arc::default(),
            removed: Arc::default(),
            failed: Arc::default(),
        }
    }

    /// Whether a clone of it lives.
    pub(crate) fn is_used_elsewhere(&self) -> bool {
        Arc::strong_count(&self.purges) > 1
    }
}

#[async_trait]
impl Store for Watched {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn promises(&self) -> Promises {
        self.store.promises()
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        self.store.claim(request).await
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        self.store.heartbeat(permit, lease).await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        self.store.complete(permit, reply).await
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        self.store.release(permit).await
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        self.purges.fetch_add(1, Ordering::Relaxed);
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let purged = self.store.purge(at_most).await;
        match &purged {
            Ok(removed) => self.removed.fetch_add(*removed, Ordering::Relaxed),
            Err(error) => {
                eprintln!("{error:?}");
                self.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
        purged
    }
}
