//! Claim, handle, complete: records in a store of their own.

mod recent;

use std::any::TypeId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mmate_core::health::Status;
use mmate_core::{
    BoxError, Context, FromContext, HandlerError, Idempotency, Middleware, Next, Outcome,
    Requirement, Surroundings,
};

use self::recent::{DEFAULT_RECALL, Recent, Spot};
use super::identity::Identity;
use super::lease::{DEFAULT_LEASE, Lease, Leases, OnBusy, SHORTEST_LEASE, Turn, Waited};
use super::outage::{self, Patience};
use super::{answers, shared_options, verdict};
use crate::protocol::{Fate, is_acknowledged};
use crate::store::{ClaimRequest, Permit, RecordKey, Store};

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
    reply_limit: usize,
    lease: Duration,
    on_busy: OnBusy,
    fail_open: bool,
    leases: Arc<Leases>,
    recent: Arc<Recent>,
}

impl Tracked {
    /// Records in that store.
    pub fn new(store: impl Store) -> Self {
        let recent = Arc::new(Recent::before(&store, DEFAULT_RECALL));
        Self {
            recent,
            identity: Identity::default(),
            patience: Patience::default(),
            purge_every: super::PURGE_EVERY,
            reply_limit: super::REPLY_LIMIT,
            lease: DEFAULT_LEASE,
            on_busy: OnBusy::default(),
            fail_open: false,
            leases: Leases::new(store),
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

    /// For how long what is done is known in this process, so that its copies are recognised without asking the store;
    /// 60 s by default, and zero asks the store about each message. The latest 65,536 are known at least; all that is known
    /// takes 30 MB at most.
    ///
    /// Only that a message is done is known so: a record that is done stays so until its window is over, and at most a
    /// quarter of the window is made use of. A record that is deleted by hand, so that its message is handled again, is
    /// known for as long as any. Nothing is known of stores that no other process uses, nor of those that do not say for how
    /// long they remember ([`Store::remembers`]), nor of messages that got a reply, which the store keeps.
    pub fn recall(mut self, time: Duration) -> Self {
        self.recent = Arc::new(Recent::before(self.leases.store(), time));
        self
    }

    shared_options!();
}

#[async_trait]
impl Middleware for Tracked {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let claimed = match self.identity.record_key(context, context.scope())? {
            Some(key) => self.look(context, key).await?,
            None => Claimed::Unprotected,
        };
        match claimed {
            Claimed::Lease(lease, spot) => self.run(lease, spot, context, next).await,
            Claimed::Answer(outcome) => Ok(outcome),
            Claimed::Unprotected => {
                context.mark_unprotected();
                next.run(context).await
            }
        }
    }

    async fn start(&self) -> Result<(), BoxError> {
        self.leases.start(self.lease, self.purge_every).await
    }

    async fn stop(&self) {
        self.leases.stop(self.patience).await;
    }

    fn check(&self, surroundings: &Surroundings) -> Result<(), String> {
        self.identity.check()?;
        self.on_busy.check(surroundings)?;
        outage::check(self.patience, surroundings)
    }

    fn warnings(&self, surroundings: &Surroundings) -> Vec<String> {
        self.identity.warnings(self.leases.store().remembers(), surroundings)
    }

    fn status(&self) -> Status {
        self.leases.status(match self.fail_open {
            true => "messages run without protection against duplicates",
            false => "messages are held back",
        })
    }

    fn provides(&self) -> Vec<TypeId> {
        vec![TypeId::of::<Permit>(), TypeId::of::<RecordKey>()]
    }
}

impl Idempotency for Tracked {}

/// How a message may be handled.
enum Claimed {
    /// With what will be known to be done.
    Lease(Lease, Option<Spot>),
    Unprotected,
    Answer(Outcome),
}

impl Tracked {
    /// Asks what is known here, and then the store. A copy that is equal byte by byte is not decoded.
    async fn look(&self, context: &Context, key: RecordKey) -> Result<Claimed, HandlerError> {
        let spot = self.recent.spot(&key, self.identity.content(context));
        if let Some(seen) = spot.and_then(|spot| self.recent.find(spot)) {
            return Ok(Claimed::Answer(verdict::duplicate(context, &seen)));
        }
        let request = self.identity.claim_of(context, key, self.lease)?;
        let spot = spot.map(|spot| spot.with(request.fingerprint));
        if let Some(seen) = spot.and_then(|spot| self.recent.find_alike(spot)) {
            return Ok(Claimed::Answer(verdict::duplicate(context, &seen)));
        }
        Ok(self.claim(context, &request, spot).await)
    }

    async fn claim(
        &self,
        context: &Context,
        request: &ClaimRequest<'_>,
        spot: Option<Spot>,
    ) -> Claimed {
        // Who wants to go on without the store does not wait for it.
        let outage = if self.fail_open { Duration::ZERO } else { self.patience.outage };
        let patience = Patience { outage, ..self.patience };
        let mut turn = Turn::new(self.on_busy);
        loop {
            let (answer, asked) = self.leases.ask(request, patience).await;
            if answer.is_err() && self.fail_open {
                return Claimed::Unprotected;
            }
            let remaining = match Fate::of_claim(answer.ok()) {
                Fate::Run(grant) => {
                    let permit = Permit::new(request, grant);
                    let lease = Lease::new(&self.leases, permit, self.lease, asked, self.patience);
                    return Claimed::Lease(lease, spot);
                }
                Fate::Skip(seen) => {
                    if let Some(spot) = spot {
                        self.recent.note(spot, &seen);
                    }
                    return Claimed::Answer(verdict::duplicate(context, &seen));
                }
                Fate::Conflict => return Claimed::Answer(verdict::conflict(context)),
                Fate::Unanswered => return Claimed::Answer(verdict::trouble()),
                Fate::Busy(remaining) => remaining,
            };
            match turn.wait().await {
                Waited::LookAgain => {}
                Waited::Drop => return Claimed::Answer(verdict::dropped(context)),
                Waited::Defer => return Claimed::Answer(verdict::busy(context, remaining)),
            }
        }
    }

    async fn run(
        &self,
        lease: Lease,
        spot: Option<Spot>,
        context: &mut Context,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        context.insert(lease.permit().clone());
        let result = lease.while_held(next.run(context)).await;
        context.remove::<Permit>();
        match result {
            Some(Ok(outcome @ (Outcome::Done | Outcome::Answered(_) | Outcome::Duplicate(_)))) => {
                Ok(self.complete(lease, spot, context, outcome).await)
            }
            Some(other) => {
                lease.release().await;
                other
            }
            None => {
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

    async fn complete(
        &self,
        lease: Lease,
        spot: Option<Spot>,
        context: &Context,
        outcome: Outcome,
    ) -> Outcome {
        let meters = self.leases.meters();
        let message_id = context.message_id().map(tracing::field::display);
        let fence = lease.permit().fence();
        let reply = answers::kept(&outcome, context, self.reply_limit, meters);
        // What has a reply is left to the store, which keeps it.
        let spot = spot.filter(|_| reply.is_none());
        let completed = lease.complete(reply).await;
        if is_acknowledged(completed.as_ref().ok().copied()) {
            if let Some(spot) = spot {
                self.recent.note_done(spot, context);
            }
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
            .field("store", &self.leases.name())
            .field("identity", &self.identity)
            .field("lease", &self.lease)
            .field("on_busy", &self.on_busy)
            .field("fail_open", &self.fail_open)
            .finish_non_exhaustive()
    }
}
