//! Claim, handle, complete: records in a store of their own.

mod keeper;
mod lease;

use std::any::TypeId;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use mmate_core::health::Status;
use mmate_core::{
    BoxError, Context, FromContext, HandlerError, Idempotency, Middleware, Next, Outcome,
    Requirement, Surroundings,
};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use self::keeper::Keeper;
use self::lease::{Asking, Lease};
use super::identity::Identity;
use super::outage::{self, Patience, Teller};
use super::upkeep::Upkeep;
use super::{shared_options, verdict};
use crate::metrics::Meters;
use crate::protocol::{Claim, Fate, is_acknowledged};
use crate::store::{ClaimRequest, Permit, Store, StoreError};

/// Claims a message in a store, handles it, and records that it is done.
///
/// What it promises depends on the store; with one that is durable and shared: no message is lost,
/// and of all its copies one execution completes, as long as handlers finish within their lease or
/// prolong it. A process that dies between the effect and the record leaves one message that runs
/// a second time, after the lease. (An effect in a SQL database can do better with
/// `Transactional`.)
///
/// While a copy is being handled, others are deferred ([`OnBusy`]). While the store does not
/// answer, messages are held back, and nothing runs ([`fail_open`](Self::fail_open) changes that).
///
/// ```
/// use std::time::Duration;
/// use mmate_core::{HandlerError, Json, Subscription};
/// use mmate_idempotency::{MemoryStore, Tracked};
///
/// async fn send_mail(Json(address): Json<String>) -> Result<(), HandlerError> {
/// #   let _ = address;
///     Ok(())
/// }
///
/// let strategy = Tracked::new(MemoryStore::new()).lease(Duration::from_secs(30));
/// let subscription = Subscription::per_service("welcome", ["user.created.*"])
///     .idempotent(strategy)
///     .handler(send_mail);
/// # let _ = subscription;
/// ```
///
/// Cheap to clone; clones share the store.
#[derive(Clone)]
#[must_use = "a strategy does nothing until a subscription has it"]
pub struct Tracked {
    identity: Identity,
    patience: Patience,
    purge_every: Duration,
    lease: Duration,
    on_busy: OnBusy,
    fail_open: bool,
    shared: Arc<Shared>,
}

/// What becomes of a copy of a message that somebody works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnBusy {
    /// The broker shows it again later, which counts as no attempt. By then it is a duplicate, or
    /// it takes over from a holder that failed. The default.
    #[default]
    Defer,
    /// It waits for its turn here, with a handler's place taken, for so long; then it is deferred.
    Wait(Duration),
    /// It is acknowledged. **This loses the message** if the holder crashes: nobody has a copy
    /// then. Only for messages that may be lost.
    Drop,
}

/// What the clones of a strategy share.
struct Shared {
    store: Arc<dyn Store>,
    keeper: Arc<Keeper>,
    /// Releases and completions whose handlers are gone.
    tracker: TaskTracker,
    upkeep: Upkeep,
    teller: Teller,
    meters: OnceLock<Arc<Meters>>,
}

const DEFAULT_LEASE: Duration = Duration::from_secs(60);
const SHORTEST_LEASE: Duration = Duration::from_millis(10);

impl Tracked {
    /// Records in that store.
    pub fn new(store: impl Store) -> Self {
        let store: Arc<dyn Store> = Arc::new(store);
        Self {
            identity: Identity::default(),
            patience: Patience::default(),
            purge_every: super::PURGE_EVERY,
            lease: DEFAULT_LEASE,
            on_busy: OnBusy::default(),
            fail_open: false,
            shared: Arc::new(Shared {
                keeper: Keeper::new(Arc::clone(&store)),
                store,
                tracker: TaskTracker::new(),
                upkeep: Upkeep::default(),
                teller: Teller::default(),
                meters: OnceLock::new(),
            }),
        }
    }

    /// How long a claim holds without a heartbeat, and so how long a message waits if its process
    /// dies; 60 s by default, 10 ms at least. It is prolonged at every third of it for as long as
    /// the handler runs.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(SHORTEST_LEASE);
        self
    }

    /// What becomes of a copy of a message that somebody works on; it is deferred by default.
    pub fn on_busy(mut self, on_busy: OnBusy) -> Self {
        self.on_busy = on_busy;
        self
    }

    /// While the store does not answer, handles messages without protection against duplicates,
    /// instead of holding them back. Each such run is counted as `unprotected`.
    pub fn fail_open(mut self) -> Self {
        self.fail_open = true;
        self
    }

    shared_options!();
}

#[async_trait]
impl Middleware for Tracked {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let claimed = match self.identity.claim(context, self.lease)? {
            Some(request) => self.claim(context, request).await,
            None => Claimed::Unprotected,
        };
        match claimed {
            Claimed::Lease(lease) => self.run(lease, context, next).await,
            Claimed::Answer(outcome) => Ok(outcome),
            Claimed::Unprotected => {
                context.mark_unprotected();
                next.run(context).await
            }
        }
    }

    async fn start(&self) -> Result<(), BoxError> {
        self.shared.store.migrate().await?;
        self.shared.keeper.start(self.lease);
        self.shared.upkeep.start(&self.shared.store, self.purge_every, self.shared.meters());
        Ok(())
    }

    async fn stop(&self) {
        self.shared.upkeep.stop();
        // Others may share the strategy: it is closed only to see what is left end.
        self.shared.tracker.close();
        let left = tokio::time::timeout(self.patience.answer, self.shared.tracker.wait()).await;
        self.shared.tracker.reopen();
        if left.is_err() {
            tracing::warn!("claims were not given back in time; they end with their leases");
        }
    }

    fn check(&self, surroundings: &Surroundings) -> Result<(), String> {
        if let OnBusy::Wait(longest) = self.on_busy {
            surroundings
                .may_hold(&format!("a copy waits up to {longest:?} for its turn"), longest)?;
        }
        outage::check(self.patience, surroundings)
    }

    fn status(&self) -> Status {
        let consequence = match self.fail_open {
            true => "messages run without protection against duplicates",
            false => "messages are held back",
        };
        self.shared.teller.status(self.shared.name(), consequence)
    }

    fn provides(&self) -> Vec<TypeId> {
        vec![TypeId::of::<Permit>()]
    }
}

impl Idempotency for Tracked {}

/// How a message may be handled.
enum Claimed {
    Lease(Lease),
    Unprotected,
    Answer(Outcome),
}

impl Tracked {
    async fn claim(&self, context: &Context, request: ClaimRequest<'_>) -> Claimed {
        let shared = &self.shared;
        let mut began = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let (answer, asked) = self.ask(&request).await;
            match &answer {
                Ok(claim) => shared.meters().claimed(claim),
                Err(_) if self.fail_open => return Claimed::Unprotected,
                Err(_) => {}
            }
            let remaining = match Fate::of_claim(answer.ok()) {
                Fate::Run(grant) => {
                    let permit = Permit::new(&request, grant);
                    let lease = Lease::new(shared, permit, self.lease, asked, self.patience);
                    return Claimed::Lease(lease);
                }
                Fate::Skip(seen) => return Claimed::Answer(verdict::duplicate(context, &seen)),
                Fate::Conflict => return Claimed::Answer(verdict::conflict(context)),
                Fate::Unanswered => return Claimed::Answer(verdict::trouble()),
                Fate::Busy(remaining) => remaining,
            };
            match self.on_busy {
                OnBusy::Drop => return Claimed::Answer(verdict::dropped(context)),
                OnBusy::Wait(longest)
                    if began.get_or_insert_with(Instant::now).elapsed() + pause <= longest =>
                {
                    sleep(pause.mul_f64(1.0 - 0.5 * fastrand::f64())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                OnBusy::Wait(_) | OnBusy::Defer => {
                    return Claimed::Answer(verdict::busy(context, remaining));
                }
            }
        }
    }

    /// Asks the store until it answers or patience ends; and when the last question was put.
    async fn ask(&self, request: &ClaimRequest<'_>) -> (Result<Claim, StoreError>, Instant) {
        let shared = &self.shared;
        // Who wants to go on without the store does not wait for it.
        let outage = if self.fail_open { Duration::ZERO } else { self.patience.outage };
        let patience = Patience { outage, ..self.patience };
        let asking = Asking::new(shared, request, patience);
        let mut asked = Instant::now();
        let told = |error: &StoreError| {
            outage::note(shared.meters(), &shared.teller, shared.name(), error);
        };
        let call = || {
            asked = Instant::now();
            shared.store.claim(request)
        };
        let answer = outage::insist(patience, "claim a key", told, call).await;
        if answer.is_ok() {
            asking.answered();
        }
        (answer, asked)
    }

    async fn run(
        &self,
        lease: Lease,
        context: &mut Context,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        context.insert(lease.permit().clone());
        let result = tokio::select! {
            biased;
            result = next.run(context) => Some(result),
            () = lease.lost() => None,
        };
        context.remove::<Permit>();
        match result {
            Some(Ok(outcome @ (Outcome::Done | Outcome::Answered(_) | Outcome::Duplicate(_)))) => {
                Ok(self.complete(lease, context, outcome).await)
            }
            Some(other) => {
                lease.release().await;
                other
            }
            None => {
                self.shared.meters().lease_lost.increment(1);
                tracing::warn!(
                    message_id = context.message_id().map(tracing::field::display),
                    fence = lease.permit().fence(),
                    "a handler was cancelled, since its lease was lost; the message is shown again"
                );
                lease.forget();
                Ok(verdict::trouble())
            }
        }
    }

    async fn complete(&self, lease: Lease, context: &Context, outcome: Outcome) -> Outcome {
        let meters = self.shared.meters();
        let message_id = context.message_id().map(tracing::field::display);
        let fence = lease.permit().fence();
        let completed = lease.complete().await;
        if is_acknowledged(completed.as_ref().ok().copied()) {
            return outcome;
        }
        match completed {
            Ok(_) => {
                meters.lease_lost.increment(1);
                tracing::warn!(
                    message_id,
                    fence,
                    "a message was handled, but its lease was lost before that was recorded; it is \
                     shown again"
                );
            }
            Err(error) => tracing::error!(
                message_id,
                error = mmate_core::error_chain(&error),
                "a message was handled, but that could not be recorded; it is shown again"
            ),
        }
        meters.uncertain.increment(1);
        verdict::trouble()
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Shared {
    fn meters(&self) -> &Arc<Meters> {
        self.meters.get_or_init(|| Arc::new(Meters::new(self.store.name())))
    }

    fn name(&self) -> &'static str {
        self.store.name()
    }
}

impl FromContext for Permit {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        let permit = context.extension::<Self>().cloned();
        permit.ok_or_else(|| HandlerError::retryable("the message runs without a claim"))
    }

    fn requirement() -> Option<Requirement> {
        Some(Requirement::new::<Self>(
            "Permit",
            "guard the subscription with .idempotent(Tracked::new(store))",
        ))
    }
}

impl fmt::Debug for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("store", &self.shared.name())
            .field("identity", &self.identity)
            .field("lease", &self.lease)
            .field("on_busy", &self.on_busy)
            .field("fail_open", &self.fail_open)
            .finish_non_exhaustive()
    }
}
