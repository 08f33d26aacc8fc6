//! A store that fails, is slow or dies on demand.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::{ClaimRequest, Promises, StoreErrorKind};
use mmate_idempotency::{Permit, Store, StoreError};

/// What is asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Claim,
    Heartbeat,
    Complete,
    Release,
}

/// When a fault takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum When {
    /// The store has not seen the call.
    Before,
    /// The store has done it; the answer may get lost.
    After,
}

/// What happens at a call; an error is what the caller gets.
pub(crate) type Fault =
    Arc<dyn Fn(Call, When) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync>;

/// A store behind faults.
#[derive(Clone)]
pub(crate) struct Faulty {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) fault: Fault,
}

impl Faulty {
    async fn call<T>(
        &self,
        call: Call,
        does: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        (self.fault)(call, When::Before).await?;
        let answer = does.await?;
        (self.fault)(call, When::After).await?;
        Ok(answer)
    }
}

/// The error of a store that cannot be reached.
pub(crate) fn down() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "reach the store", "it is down")
}

#[async_trait]
impl Store for Faulty {
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
        self.call(Call::Claim, self.store.claim(request)).await
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        self.call(Call::Heartbeat, self.store.heartbeat(permit, lease)).await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        self.call(Call::Complete, self.store.complete(permit, reply)).await
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        self.call(Call::Release, self.store.release(permit)).await
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        self.store.purge(at_most).await
    }
}
