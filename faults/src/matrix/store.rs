//! A store with failpoints before and after its calls.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::{ClaimRequest, Promises, StoreErrorKind};
use mmate_idempotency::{Permit, Store, StoreError};

use super::cell::Boundary;
use super::point::{Point, Strike};
use super::role::Defect;

pub(crate) struct Pointed {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) point: Arc<Point>,
    pub(crate) defect: Option<Defect>,
    /// Whether the claims are locks, which end with their release.
    pub(crate) is_lock: bool,
}

impl Pointed {
    async fn call<T>(
        &self,
        [sent, applied]: [Boundary; 2],
        id: &str,
        does: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let failed = |kind| StoreError::new(kind, "reach the store", "it was struck");
        match self.point.at(sent, id) {
            Some(Strike::Error) => return Err(failed(StoreErrorKind::Unavailable)),
            Some(Strike::Lost) => pending::<()>().await,
            None => {}
        }
        let answer = does.await?;
        match self.point.at(applied, id) {
            Some(Strike::Error) => return Err(failed(StoreErrorKind::Unknown)),
            Some(Strike::Lost) => pending::<()>().await,
            None => {}
        }
        Ok(answer)
    }
}

#[async_trait]
impl Store for Pointed {
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
        let at = [Boundary::ClaimSent, Boundary::ClaimApplied];
        let claim = self.call(at, request.key.id(), self.store.claim(request)).await?;
        if let (Some(Defect::MarksFirst), Claim::Granted(grant)) = (self.defect, &claim) {
            self.store.complete(&Permit::new(request, *grant), None).await?;
        }
        Ok(claim)
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        self.store.heartbeat(permit, lease).await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        let at = [Boundary::EndSent, Boundary::EndApplied];
        self.call(at, permit.key().id(), self.store.complete(permit, reply)).await
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        if !self.is_lock {
            return self.store.release(permit).await;
        }
        let at = [Boundary::EndSent, Boundary::EndApplied];
        self.call(at, permit.key().id(), self.store.release(permit)).await
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        self.store.purge(at_most).await
    }
}
