//! Claims that are held by a lease: what the strategies with a store of their own have in common.

mod alarm;
mod busy;
mod held;
mod keeper;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mmate_core::BoxError;
use mmate_core::health::Status;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

pub use self::busy::OnBusy;
pub(super) use self::busy::{Turn, Waited};
use self::held::Asking;
pub(crate) use self::held::Lease;
use self::keeper::Keeper;
use super::outage::{self, Patience, Teller};
use super::upkeep::Upkeep;
use crate::metrics::Meters;
use crate::protocol::{Claim, Grant};
use crate::store::{ClaimRequest, Claimant, Metered, Permit, RecordKey, Store, StoreError};

pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(60);
pub(crate) const SHORTEST_LEASE: Duration = Duration::from_millis(10);

/// A store, and the claims that are held in it. The clones of a strategy share it.
pub(crate) struct Leases {
    store: Arc<dyn Store>,
    keeper: Arc<Keeper>,
    /// Releases and completions whose handlers are gone.
    tracker: TaskTracker,
    upkeep: Upkeep,
    teller: Teller,
    meters: OnceLock<Arc<Meters>>,
}

impl Leases {
    pub(crate) fn new(store: impl Store) -> Arc<Self> {
        let store: Arc<dyn Store> = Arc::new(Metered::new(store));
        Arc::new(Self {
            keeper: Keeper::new(Arc::clone(&store)),
            store,
            tracker: TaskTracker::new(),
            upkeep: Upkeep::default(),
            teller: Teller::default(),
            meters: OnceLock::new(),
        })
    }

    /// For one more subscription, whose claims have this lease.
    pub(crate) async fn start(
        &self,
        lease: Duration,
        purge_every: Duration,
    ) -> Result<(), BoxError> {
        self.store.migrate().await?;
        self.begin(lease, purge_every);
        Ok(())
    }

    /// The same, with a store that is ready.
    pub(crate) fn begin(&self, lease: Duration, purge_every: Duration) {
        self.keeper.start(lease);
        self.upkeep.start(&self.store, purge_every, self.meters());
    }

    /// Runs a task that the end is waited for with what is left of claims.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tracker.spawn(task)
    }

    /// For one subscription less.
    pub(crate) async fn stop(&self, patience: Patience) {
        self.upkeep.stop();
        self.settle(patience.answer).await;
    }

    /// Waits for what is left to be given back or recorded.
    pub(crate) async fn settle(&self, limit: Duration) {
        // Others may share the strategy: it is closed only to see what is left end.
        self.tracker.close();
        let left = timeout(limit, self.tracker.wait()).await;
        self.tracker.reopen();
        if left.is_err() {
            tracing::warn!("claims were not given back in time; they end with their leases");
        }
    }

    /// Asks the store until it answers or patience ends; and when the last question was put.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        request: &ClaimRequest<'_>,
        patience: Patience,
    ) -> (Result<Claim, StoreError>, Instant) {
        let asking = Asking::new(self, request, patience);
        let mut asked = None;
        let told = |error: &StoreError| self.note(error);
        let call = || {
            asked = Some(Instant::now());
            self.store().claim(request)
        };
        let answer = outage::insist(patience, "claim a key", told, call).await;
        if let Ok(claim) = &answer {
            asking.answered();
            self.meters().claimed(claim);
        }
        (answer, asked.unwrap_or_else(Instant::now))
    }

    /// Asks the store once for something that writes nothing: to prolong what nobody holds.
    pub(crate) async fn ping(&self, answer: Duration) -> Result<(), StoreError> {
        let key = RecordKey::new("mmate/ping", "ping").expect("both are ids");
        let request = ClaimRequest::new(key, Claimant::default(), SHORTEST_LEASE);
        let grant = Grant { fence: 1, attempt: 1, taken_over: false };
        let permit = Permit::new(&request, grant);
        let patience = Patience { answer, outage: Duration::ZERO };
        let held = self.store().heartbeat(&permit, SHORTEST_LEASE);
        let answered = outage::ask(patience, "ask the store whether it answers", held).await;
        answered.map(drop).inspect_err(|error| self.note(error))
    }

    pub(crate) fn status(&self, consequence: &str) -> Status {
        self.teller.status(self.name(), consequence)
    }

    pub(crate) fn meters(&self) -> &Arc<Meters> {
        self.meters.get_or_init(|| Arc::new(Meters::new(self.store.name())))
    }

    pub(crate) fn name(&self) -> &'static str {
        self.store.name()
    }

    /// By itself: asked through its `Arc`, each call would be in a box more.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(crate) fn note(&self, error: &StoreError) {
        outage::note(self.meters(), &self.teller, self.name(), error);
    }
}
