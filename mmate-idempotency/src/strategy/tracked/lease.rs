//! A claim that is held, and what becomes of it if its holder is dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Shared;
use super::keeper::Lost;
use crate::protocol::{Grant, Held};
use crate::store::{ClaimRequest, Permit, StoreError};
use crate::strategy::outage::{self, Patience, ask};

/// A claim that was asked for, and may have been granted without our knowing: until there is an
/// answer, being dropped gives it back.
pub(super) struct Asking<'a> {
    shared: &'a Arc<Shared>,
    /// With a fence of 0, which no grant has. A claim in progress is known by its owner.
    permit: Option<Permit>,
    patience: Patience,
}

impl<'a> Asking<'a> {
    pub(super) fn new(
        shared: &'a Arc<Shared>,
        request: &ClaimRequest<'_>,
        patience: Patience,
    ) -> Self {
        let grant = Grant { fence: 0, attempt: 0, taken_over: false };
        Self { shared, permit: Some(Permit::new(request, grant)), patience }
    }

    /// There is an answer.
    pub(super) fn answered(mut self) {
        self.permit = None;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            Arc::clone(self.shared).release_later(permit, self.patience);
        }
    }
}

/// A claim that is held, with its heartbeat.
pub(super) struct Lease {
    shared: Arc<Shared>,
    permit: Permit,
    number: u64,
    lost: Arc<Lost>,
    patience: Patience,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The handler runs: being dropped gives the claim back.
    Working,
    /// The handler succeeded: being dropped goes on recording that.
    Completing,
    /// There is nothing left to do.
    Over,
}

impl Lease {
    pub(super) fn new(
        shared: &Arc<Shared>,
        permit: Permit,
        lease: Duration,
        asked: Instant,
        patience: Patience,
    ) -> Self {
        let (number, lost) = shared.keeper.hold(permit.clone(), lease, asked);
        shared.meters().held.increment(1.0);
        Self { shared: Arc::clone(shared), permit, number, lost, patience, phase: Phase::Working }
    }

    pub(super) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Ready once the lease is lost.
    pub(super) async fn lost(&self) {
        self.lost.happens().await;
    }

    /// Lets go of a claim that is somebody else's by now.
    pub(super) fn forget(mut self) {
        self.phase = Phase::Over;
    }

    /// Gives the claim back. If that fails, the end of the lease does the same.
    pub(super) async fn release(mut self) {
        let released = self.shared.release(&self.permit, self.patience).await;
        self.phase = Phase::Over;
        if let Err(error) = released {
            outage::note(self.shared.meters(), &self.shared.teller, self.shared.name(), &error);
        }
    }

    /// Records that the work is done. The lease is kept meanwhile.
    pub(super) async fn complete(mut self) -> Result<Held, StoreError> {
        self.phase = Phase::Completing;
        let completed = self.shared.complete(&self.permit, self.patience).await;
        self.phase = Phase::Over;
        completed
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.keeper.let_go(self.number);
        self.shared.meters().held.decrement(1.0);
        let shared = || Arc::clone(&self.shared);
        match self.phase {
            Phase::Over => {}
            Phase::Working => shared().release_later(self.permit.clone(), self.patience),
            Phase::Completing => shared().complete_later(self.permit.clone(), self.patience),
        }
    }
}

impl Shared {
    async fn release(&self, permit: &Permit, patience: Patience) -> Result<Held, StoreError> {
        ask(patience, "release a claim", self.store.release(permit)).await
    }

    async fn complete(&self, permit: &Permit, patience: Patience) -> Result<Held, StoreError> {
        let told = |error: &StoreError| {
            outage::note(self.meters(), &self.teller, self.name(), error);
        };
        let call = || self.store.complete(permit, None);
        outage::insist(patience, "complete a claim", told, call).await
    }

    /// In a task of its own, which the end of the service waits for.
    fn release_later(self: Arc<Self>, permit: Permit, patience: Patience) {
        let tracker = self.tracker.clone();
        spawn(&tracker, async move {
            if let Err(error) = self.release(&permit, patience).await {
                let error = mmate_core::error_chain(&error);
                tracing::debug!(key = ?permit.key(), error, "a claim ends with its lease");
            }
        });
    }

    fn complete_later(self: Arc<Self>, permit: Permit, patience: Patience) {
        let tracker = self.tracker.clone();
        spawn(&tracker, async move {
            if !matches!(self.complete(&permit, patience).await, Ok(Held::Yes)) {
                self.meters().uncertain.increment(1);
            }
        });
    }
}

/// Without a runtime nothing is done: the end of the lease then does the same.
fn spawn(tracker: &TaskTracker, task: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        tracker.spawn_on(task, &runtime);
    }
}
