//! Claims that are held, and what becomes of them if their holder is dropped.

mod keeper;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use mmate_core::health::Status;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::keeper::{Keeper, Lost};
use super::outage::{self, Patience, Teller, ask};
use crate::metrics::Meters;
use crate::protocol::{Claim, Grant, Held};
use crate::store::{ClaimRequest, Permit, Store, StoreError};

/// The claims that are held in a store by one strategy, or by one `Idempotent`.
pub(crate) struct Claims {
    store: Arc<dyn Store>,
    keeper: Arc<Keeper>,
    /// Releases and completions whose handlers are gone.
    tracker: TaskTracker,
    teller: Teller,
    meters: OnceLock<Arc<Meters>>,
}

impl Claims {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            keeper: Keeper::new(Arc::clone(&store)),
            store,
            tracker: TaskTracker::new(),
            teller: Teller::default(),
            meters: OnceLock::new(),
        })
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn name(&self) -> &'static str {
        self.store.name()
    }

    pub(crate) fn meters(&self) -> &Arc<Meters> {
        self.meters.get_or_init(|| Arc::new(Meters::new(self.store.name())))
    }

    /// Makes ready for claims with this lease.
    pub(crate) fn start(&self, lease: Duration) {
        self.keeper.start(lease);
    }

    /// Waits for what is left to be given back or recorded; others may go on claiming.
    pub(crate) async fn stop(&self, limit: Duration) {
        // It is closed only to see what is left end.
        self.tracker.close();
        let left = tokio::time::timeout(limit, self.tracker.wait()).await;
        self.tracker.reopen();
        if left.is_err() {
            tracing::warn!("claims were not given back in time; they end with their leases");
        }
    }

    /// Runs a task that the end of the service waits for.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tracker.spawn(task)
    }

    /// How the store is.
    pub(crate) fn status(&self, consequence: &str) -> Status {
        self.teller.status(self.name(), consequence)
    }

    /// Asks for a claim until the store answers or patience ends; and when the last question was
    /// put.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        request: &ClaimRequest<'_>,
        patience: Patience,
    ) -> (Result<Claim, StoreError>, Instant) {
        let asking = Asking::new(self, request, patience);
        let mut asked = Instant::now();
        let call = || {
            asked = Instant::now();
            self.store.claim(request)
        };
        let told = |error: &StoreError| self.note(error);
        let answer = outage::insist(patience, "claim a key", told, call).await;
        if let Ok(claim) = &answer {
            self.meters().claimed(claim);
            asking.answered();
        }
        (answer, asked)
    }

    fn note(&self, error: &StoreError) {
        outage::note(self.meters(), &self.teller, self.name(), error);
    }
}

/// A claim that was asked for, and may have been granted without our knowing: until there is an
/// answer, being dropped gives it back.
struct Asking<'a> {
    claims: &'a Arc<Claims>,
    /// With a fence of 0, which no grant has. A claim in progress is known by its owner.
    permit: Option<Permit>,
    patience: Patience,
}

impl<'a> Asking<'a> {
    fn new(claims: &'a Arc<Claims>, request: &ClaimRequest<'_>, patience: Patience) -> Self {
        let grant = Grant { fence: 0, attempt: 0, taken_over: false };
        Self { claims, permit: Some(Permit::new(request, grant)), patience }
    }

    /// There is an answer.
    fn answered(mut self) {
        self.permit = None;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            Arc::clone(self.claims).release_later(permit, self.patience);
        }
    }
}

/// A claim that is held, with its heartbeat.
pub(crate) struct Lease {
    claims: Arc<Claims>,
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
        claims: &Arc<Claims>,
        permit: Permit,
        lease: Duration,
        asked: Instant,
        patience: Patience,
    ) -> Self {
        let (number, lost) = claims.keeper.hold(permit.clone(), lease, asked);
        Self { claims: Arc::clone(claims), permit, number, lost, patience, phase: Phase::Working }
    }

    pub(crate) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Ready once the lease is lost.
    pub(crate) async fn lost(&self) {
        self.lost.happens().await;
    }

    /// Lets go of a claim that is somebody else's by now.
    pub(crate) fn forget(mut self) {
        self.phase = Phase::Over;
    }

    /// Gives the claim back. If that fails, the end of the lease does the same.
    pub(crate) async fn release(mut self) {
        let released = self.claims.release(&self.permit, self.patience).await;
        self.phase = Phase::Over;
        if let Err(error) = released {
            self.claims.note(&error);
        }
    }

    /// Records that the work is done, with the reply to be kept. The lease is kept meanwhile.
    pub(crate) async fn complete(mut self, reply: Option<Bytes>) -> Result<Held, StoreError> {
        self.phase = Phase::Completing(reply.clone());
        let completed = self.claims.complete(&self.permit, reply.as_ref(), self.patience).await;
        self.phase = Phase::Over;
        completed
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.claims.keeper.let_go(self.number);
        let claims = || Arc::clone(&self.claims);
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Over => {}
            Phase::Working => claims().release_later(self.permit.clone(), self.patience),
            Phase::Completing(reply) => {
                claims().complete_later(self.permit.clone(), reply, self.patience);
            }
        }
    }
}

impl Claims {
    async fn release(&self, permit: &Permit, patience: Patience) -> Result<Held, StoreError> {
        ask(patience, "release a claim", self.store.release(permit)).await
    }

    async fn complete(
        &self,
        permit: &Permit,
        reply: Option<&Bytes>,
        patience: Patience,
    ) -> Result<Held, StoreError> {
        let call = || self.store.complete(permit, reply.cloned());
        outage::insist(patience, "complete a claim", |error| self.note(error), call).await
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
