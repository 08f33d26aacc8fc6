//! One at a time: a lease on a key that is released when the handler ends.

mod permit;

use std::any::TypeId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mmate_core::health::Status;
use mmate_core::{BoxError, Context, HandlerError, Middleware, Next, Outcome, Surroundings};

pub use self::permit::LockPermit;
use super::identity::{self, Identity};
use super::lease::{DEFAULT_LEASE, Lease, Leases, OnBusy, SHORTEST_LEASE, Turn, Waited};
use super::outage::{self, Patience};
use super::{Key, MissingId, verdict};
use crate::protocol::{Claim, Held};
use crate::store::{ClaimRequest, Permit, Store};

/// Handles the messages of one key one at a time, in all processes that share the store and the
/// scope: such as all messages about one order.
///
/// **A lock is not deduplication.** It is released when the handler ends, whatever its outcome, so a
/// later copy of a message always runs again. That is why [`Locked`] is a middleware and no
/// [`Idempotency`](mmate_core::Idempotency): it goes *around* a strategy that suppresses duplicates,
/// and [`idempotent`](mmate_core::SubscriptionBuilder::idempotent) does not take it:
///
/// ```compile_fail,E0277
/// use mmate_core::Subscription;
/// use mmate_idempotency::{Key, Locked, MemoryStore};
///
/// let lock = Locked::by(MemoryStore::new(), Key::header("order"));
/// let subscription = Subscription::per_service("pay", ["order.*.*"]).idempotent(lock);
/// ```
///
/// Together they read like this: a lock by the order, and inside of it a transaction by the
/// message's id.
///
/// ```
/// use mmate_core::{HandlerError, Json, Subscription};
/// use mmate_idempotency::{Key, LockPermit, Locked, MemoryStore, Tracked};
///
/// async fn pay(Json(order): Json<serde_json::Value>, lock: LockPermit) -> Result<(), HandlerError> {
/// #   let _ = (order, lock);
///     Ok(())
/// }
///
/// let locks = Locked::by(MemoryStore::new(), Key::json_pointer("/order/id")).scope("orders");
/// let subscription = Subscription::per_service("pay", ["order.*.*"])
///     .middleware(locks)
///     .idempotent(Tracked::new(MemoryStore::new()))
///     .handler(pay);
/// # let _ = subscription;
/// ```
///
/// What it promises: while the lease holds, nobody else is inside with the same key. The lease is
/// prolonged for as long as the handler runs. If that fails until its end, or somebody took over,
/// the handler is cancelled and the message shown again (`mmate_leases_lost_total`). What a process
/// does that was paused past its lease is kept out by the lock's fence only ([`LockPermit`]; see
/// [`fence`](crate::fence)).
///
/// A message whose lock is held is deferred by default, and may so be overtaken: a lock keeps no
/// order. Within one process, [`ordered_by`](mmate_core::SubscriptionBuilder::ordered_by) is cheaper
/// and keeps it. A duplicate takes the lock too, before it is recognised: two round trips more for
/// each message.
///
/// On SQLite, have the locks in another file than the one that a `Transactional` inside writes to:
/// there is one writer to a file, and a heartbeat would wait for the end of the transaction.
///
/// Cheap to clone; clones share the store.
#[derive(Clone)]
#[must_use = "a lock does nothing until a subscription has it"]
pub struct Locked {
    identity: Identity,
    scope: Option<String>,
    patience: Patience,
    purge_every: Duration,
    lease: Duration,
    on_busy: OnBusy,
    leases: Arc<Leases>,
}

impl Locked {
    /// Locks of that key, in that store. A store that is not
    /// [shared](crate::store::Promises::shared) locks within this process only.
    pub fn by(store: impl Store, key: Key) -> Self {
        Self {
            identity: Identity { key, ..Identity::default() },
            scope: None,
            patience: Patience::default(),
            purge_every: super::PURGE_EVERY,
            lease: DEFAULT_LEASE,
            on_busy: OnBusy::default(),
            leases: Leases::new(store),
        }
    }

    /// Names what the keys are keys of, such as `orders`: all subscriptions of all services whose
    /// locks have that name and share the store exclude each other. By default each subscription is
    /// alone, within its own [`Scope`](mmate_core::Scope).
    ///
    /// A name has 1 to 200 bytes, and neither `/` nor control characters; a service with another one
    /// does not start.
    pub fn scope(mut self, name: impl Into<String>) -> Self {
        self.scope = Some(name.into());
        self
    }

    /// What becomes of a message whose lock somebody else holds; it is deferred by default.
    ///
    /// [`OnBusy::Drop`] loses the message: it is acknowledged without being handled, and counted as
    /// a duplicate for the reason `handler`.
    pub fn on_busy(mut self, on_busy: OnBusy) -> Self {
        self.on_busy = on_busy;
        self
    }

    /// Waits with a handler's place taken for up to so long, and is deferred then: short for
    /// `on_busy(OnBusy::Wait(longest))`.
    pub fn wait(self, longest: Duration) -> Self {
        self.on_busy(OnBusy::Wait(longest))
    }

    /// How long a lock holds without a heartbeat, and so how long messages of its key wait if its
    /// process dies; 60 s by default, 10 ms at least. It is prolonged at every third of it for as
    /// long as the handler runs.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(SHORTEST_LEASE);
        self
    }

    /// What becomes of a message without a key; it is dead-lettered by default.
    /// [`MissingId::Unprotected`] lets it run without a lock.
    pub fn missing_id(mut self, policy: MissingId) -> Self {
        self.identity.missing = policy;
        self
    }

    /// How long one answer of the store may take; 10 s by default.
    pub fn answer_timeout(mut self, limit: Duration) -> Self {
        self.patience.answer = limit;
        self
    }

    /// How long a message is held back, with its handler's place taken, while the store does not
    /// answer; 60 s by default. Then it is deferred.
    pub fn outage_patience(mut self, limit: Duration) -> Self {
        self.patience.outage = limit;
        self
    }

    /// How often what is left of locks nobody has used for long is removed; about once a minute by
    /// default.
    pub fn purge_every(mut self, pause: Duration) -> Self {
        self.purge_every = pause;
        self
    }
}

#[async_trait]
impl Middleware for Locked {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let scope = self.scope_of(context);
        let Some(key) = self.identity.record_key(context, &scope)? else {
            return next.run(context).await;
        };
        let request = identity::request(context, key, self.lease);
        match self.lock(context, request).await {
            Ok(lease) => self.run(lease, context, next).await,
            Err(outcome) => Ok(outcome),
        }
    }

    async fn start(&self) -> Result<(), BoxError> {
        self.leases.start(self.lease, self.purge_every).await
    }

    async fn stop(&self) {
        self.leases.stop(self.patience).await;
    }

    fn check(&self, surroundings: &Surroundings) -> Result<(), String> {
        if let Some(name) = &self.scope
            && (name.is_empty()
                || name.len() > 200
                || name.contains(|c: char| c == '/' || c.is_control()))
        {
            return Err(format!(
                "the scope {name:?} of a lock is to have 1 to 200 bytes, and neither / nor control \
                 characters"
            ));
        }
        self.identity.check()?;
        self.on_busy.check(surroundings)?;
        outage::check(self.patience, surroundings)
    }

    fn status(&self) -> Status {
        self.leases.status("messages wait for their locks")
    }

    fn provides(&self) -> Vec<TypeId> {
        vec![TypeId::of::<LockPermit>()]
    }
}

impl Locked {
    /// The scope's text in the store. No message's record has one that begins like that, so locks
    /// and records may share a store.
    fn scope_of(&self, context: &Context) -> Arc<str> {
        match &self.scope {
            Some(name) => format!("///{name}").into(),
            None => format!("//{}", context.scope()).into(),
        }
    }

    async fn lock(&self, context: &Context, request: ClaimRequest<'_>) -> Result<Lease, Outcome> {
        let mut turn = Turn::new(self.on_busy);
        loop {
            let (answer, asked) = self.leases.ask(&request, self.patience).await;
            let remaining = match answer {
                Ok(Claim::Granted(grant)) => {
                    let permit = Permit::new(&request, grant);
                    return Ok(Lease::new(&self.leases, permit, self.lease, asked, self.patience));
                }
                Ok(Claim::Busy { remaining }) => remaining,
                Ok(Claim::Duplicate(_) | Claim::Conflict) => {
                    tracing::error!(
                        key = ?request.key,
                        "what stands in the store where a lock should is the record of a message; \
                         the message is shown again"
                    );
                    return Err(verdict::trouble());
                }
                Err(_) => return Err(verdict::trouble()),
            };
            match turn.wait().await {
                Waited::LookAgain => {}
                Waited::Drop => return Err(verdict::dropped_at_lock(context)),
                Waited::Defer => return Err(verdict::locked(context, remaining)),
            }
        }
    }

    async fn run(
        &self,
        lease: Lease,
        context: &mut Context,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        let outer = context.insert(LockPermit::new(lease.permit().clone()));
        let result = lease.while_held(next.run(context)).await;
        match outer {
            Some(outer) => drop(context.insert(outer)),
            None => drop(context.remove::<LockPermit>()),
        }
        let message_id = context.message_id().map(tracing::field::display);
        let fence = lease.permit().fence();
        let Some(result) = result else {
            tracing::warn!(
                message_id,
                fence,
                "a handler was cancelled, since its lock was lost; the message is shown again"
            );
            lease.forget();
            return Ok(verdict::trouble());
        };
        if lease.release().await == Some(Held::Refused) {
            self.leases.meters().lease_lost.increment(1);
            tracing::warn!(
                message_id,
                fence,
                "a message was handled, but its lock was lost meanwhile, and somebody else may have \
                 been inside too"
            );
        }
        result
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked")
            .field("store", &self.leases.name())
            .field("key", &self.identity.key)
            .field("scope", &self.scope)
            .field("lease", &self.lease)
            .field("on_busy", &self.on_busy)
            .finish_non_exhaustive()
    }
}
