//! A store whose calls are counted and timed.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use metrics::{Counter, Histogram};

use super::{ClaimRequest, Permit, Promises, Store, StoreError};
use crate::metrics::{stale_calls, store_call_seconds};
use crate::protocol::{Claim, Held, Retention};

/// A store whose calls are timed, and of whose answers those are counted that went to somebody who
/// held a claim no more.
pub(crate) struct Metered<S> {
    store: S,
    /// Made at the first call: by then the program has installed its recorder.
    meters: OnceLock<AllMeters>,
}

struct AllMeters {
    claim: Meters,
    heartbeat: Meters,
    complete: Meters,
    release: Meters,
}

struct Meters {
    seconds: Histogram,
    stale: Counter,
}

impl Meters {
    fn new(store: &'static str, call: &'static str) -> Self {
        Self { seconds: store_call_seconds(store, call), stale: stale_calls(store, call) }
    }

    async fn timed<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begin = Instant::now();
        let answer = call.await;
        self.seconds.record(begin.elapsed());
        answer
    }

    async fn held(
        &self,
        call: impl Future<Output = Result<Held, StoreError>>,
    ) -> Result<Held, StoreError> {
        let answer = self.timed(call).await;
        if let Ok(Held::Refused) = answer {
            self.stale.increment(1);
        }
        answer
    }
}

impl<S: Store> Metered<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, meters: OnceLock::new() }
    }

    fn meters(&self) -> &AllMeters {
        self.meters.get_or_init(|| {
            let meters = |call| Meters::new(self.store.name(), call);
            AllMeters {
                claim: meters("claim"),
                heartbeat: meters("heartbeat"),
                complete: meters("complete"),
                release: meters("release"),
            }
        })
    }
}

#[async_trait]
impl<S: Store> Store for Metered<S> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn remembers(&self) -> Option<Retention> {
        self.store.remembers()
    }

    fn promises(&self) -> Promises {
        self.store.promises()
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        self.meters().claim.timed(self.store.claim(request)).await
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        self.meters().heartbeat.held(self.store.heartbeat(permit, lease)).await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        self.meters().complete.held(self.store.complete(permit, reply)).await
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        self.meters().release.held(self.store.release(permit)).await
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        self.store.purge(at_most).await
    }
}
