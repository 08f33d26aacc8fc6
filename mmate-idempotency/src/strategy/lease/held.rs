//! A claim that is held, and what becomes of it if its holder is dropped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Leases;
use crate::protocol::{Grant, Held};
use crate::store::{ClaimRequest, Lost, Permit, StoreError};
use crate::strategy::outage::{self, Patience, ask};

/// A claim that was asked for, and may have been granted without our knowing: until there is an
/// answer, being dropped gives it back.
pub(super) struct Asking<'a> {
    leases: &'a Arc<Leases>,
    /// With a fence of 0, which no grant has. A claim in progress is known by its owner.
    permit: Option<Permit>,
    patience: Patience,
}

impl<'a> Asking<'a> {
    pub(super) fn new(
        leases: &'a Arc<Leases>,
        request: &ClaimRequest<'_>,
        patience: Patience,
    ) -> Self {
        let grant = Grant { fence: 0, attempt: 0, taken_over: false };
        Self { leases, permit: Some(Permit::new(request, grant)), patience }
    }

    /// There is an answer.
    pub(super) fn answered(mut self) {
        self.permit = None;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            Arc::clone(self.leases).release_later(permit, self.patience);
        }
    }
}

/// A claim that is held, with its heartbeat.
pub(crate) struct Lease {
    leases: Arc<Leases>,
    permit: Permit,
    number: u64,
    lost: Arc<Lost>,
    patience: Patience,
    phase: Phase,
}

enum Phase {
    /// The handler runs: being dropped gives the claim back.
    Working,
    /// The handler succeeded: being dropped goes on recording that, with the reply.
    Completing(Option<Bytes>),
    /// There is nothing left to do.
    Over,
}

impl Lease {
    pub(crate) fn new(
        leases: &Arc<Leases>,
        permit: Permit,
        lease: Duration,
        asked: Instant,
        patience: Patience,
    ) -> Self {
        let (number, lost) = leases.keeper.hold(permit.clone(), lease, asked);
        leases.meters().held.increment(1.0);
        let permit = permit.watched(Arc::clone(&lost));
        Self { leases: Arc::clone(leases), permit, number, lost, patience, phase: Phase::Working }
    }

    pub(crate) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Runs something for as long as the lease is held; `None` if it was lost before that ended.
    pub(crate) async fn while_held<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.lost.happens() => {
                self.leases.meters().lease_lost.increment(1);
                None
            }
        }
    }

    /// Lets go of a claim that is somebody else's by now.
    pub(crate) fn forget(mut self) {
        self.phase = Phase::Over;
    }

    /// Gives the claim back, and says whether it was held; nobody knows if the store does not
    /// answer. The end of the lease then does the same.
    pub(crate) async fn release(mut self) -> Option<Held> {
        // What the handler left running must know before anybody else is let in.
        self.lost.set();
        let released = self.leases.release(&self.permit, self.patience).await;
        self.phase = Phase::Over;
        released.inspect_err(|error| self.leases.note(error)).ok()
    }

    /// Records that the work is done, with the reply to be kept. The lease is kept meanwhile.
    pub(crate) async fn complete(mut self, reply: Option<Bytes>) -> Result<Held, StoreError> {
        self.phase = Phase::Completing(reply.clone());
        let completed = self.leases.complete(&self.permit, reply.as_ref(), self.patience).await;
        self.phase = Phase::Over;
        completed
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.keeper.let_go(self.number);
        self.leases.meters().held.decrement(1.0);
        let leases = || Arc::clone(&self.leases);
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Over => {}
            Phase::Working => {
                self.lost.set();
                leases().release_later(self.permit.clone(), self.patience);
            }
            Phase::Completing(reply) => {
                leases().complete_later(self.permit.clone(), reply, self.patience);
            }
        }
    }
}

impl Leases {
    async fn release(&self, permit: &Permit, patience: Patience) -> Result<Held, StoreError> {
        ask(patience, "release a claim", self.store().release(permit)).await
    }

    async fn complete(
        &self,
        permit: &Permit,
        reply: Option<&Bytes>,
        patience: Patience,
    ) -> Result<Held, StoreError> {
        let told = |error: &StoreError| self.note(error);
        let call = || self.store().complete(permit, reply.cloned());
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

    fn complete_later(self: Arc<Self>, permit: Permit, reply: Option<Bytes>, patience: Patience) {
        let tracker = self.tracker.clone();
        spawn(&tracker, async move {
            if !matches!(self.complete(&permit, reply.as_ref(), patience).await, Ok(Held::Yes)) {
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
