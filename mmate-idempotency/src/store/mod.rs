//! Stores: where the records are.

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "redis"))]
pub(crate) mod claim_call;
mod clock;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "redis"))]
pub(crate) mod coalesce;
mod error;
mod lost;
mod memory;
mod metered;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) mod sql;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mmate_core::TraceParent;

pub use clock::ManualClock;
pub(crate) use clock::{Clock, moves_of_manual_clocks, wall_clock};
pub use error::{StoreError, StoreErrorKind};
pub(crate) use lost::Lost;
pub use memory::MemoryStore;
pub(crate) use metered::Metered;
#[cfg(feature = "mysql")]
pub use mysql::MySqlStore;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
#[cfg(feature = "redis")]
pub(crate) use redis::Code;
#[cfg(feature = "redis-tls")]
pub use redis::RedisTls;
#[cfg(feature = "redis")]
pub use redis::{InvalidPrefix, RedisStore};
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use sql::InvalidTableName;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use crate::protocol::{Claim, Digest, Grant, Held, Holder, Owner, Retention};

/// A place for records. Each call is one round trip, and is atomic: no two claims of one key are
/// ever granted at the same time, whatever process they come from.
///
/// Every implementation gives the verdicts of [`protocol::step`](crate::protocol::step), by its own
/// clock; the cases in `conformance` (feature `conformance`) show it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One word for metrics and logs, such as `sqlite`.
    fn name(&self) -> &'static str;

    /// What may be relied on.
    fn promises(&self) -> Promises;

    /// For how long records are kept, if the store can tell. A strategy warns at the start if that is
    /// too short.
    fn remembers(&self) -> Option<Retention> {
        None
    }

    /// Makes what the store needs, such as a table, or checks it if it is there.
    ///
    /// # Errors
    /// When it cannot be made, or is there in another shape.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Asks for the right to work on a key. Asked again with the same owner it gives the same
    /// answer, so a call whose answer did not come is repeated.
    ///
    /// # Errors
    /// When the store cannot tell; see [`StoreErrorKind`].
    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError>;

    /// Prolongs a lease, to so long from now.
    ///
    /// # Errors
    /// When the store cannot tell. That is no reason to give up before the lease is over.
    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError>;

    /// Makes a record Done, from when on every copy is a duplicate.
    ///
    /// # Errors
    /// When the store cannot tell; repeating the call does no harm.
    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError>;

    /// Gives a claim back, so that the next one is granted at once.
    ///
    /// # Errors
    /// When the store cannot tell; the end of the lease then does what was asked.
    async fn release(&self, permit: &Permit) -> Result<Held, StoreError>;

    /// Forgets up to `at_most` records whose time is over, and returns how many that were.
    ///
    /// # Errors
    /// When the store cannot do it now.
    async fn purge(&self, at_most: u32) -> Result<u64, StoreError>;
}

/// What may be relied on in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores of others make them")]
pub struct Promises {
    /// What is Done is still so after the process, or the machine it runs on, died.
    pub durable: bool,
    /// Several processes may use it at the same time.
    pub shared: bool,
    /// Nothing that is Done is forgotten before its window is over.
    pub complete: bool,
}

/// What a record is about: an id within a scope.
///
/// ```
/// use mmate_idempotency::store::RecordKey;
/// let key = RecordKey::new("inventory/reserve-stock", "order-4711")?;
/// assert!(RecordKey::new("inventory/reserve-stock", "order\0").is_err());
/// # let _ = key; Ok::<(), mmate_core::InvalidId>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RecordKey {
    scope: Arc<str>,
    id: mmate_core::MessageId,
}

impl RecordKey {
    /// The id within the scope. Ids are compared byte by byte.
    ///
    /// # Errors
    /// When the id is empty, longer than 255 bytes, or has a control character such as NUL: no
    /// store is asked about it then.
    pub fn new(
        scope: impl Into<Arc<str>>,
        id: impl AsRef<str>,
    ) -> Result<Self, mmate_core::InvalidId> {
        Ok(Self { scope: scope.into(), id: mmate_core::MessageId::parse(id)? })
    }

    pub(crate) fn of_message(scope: &Arc<str>, id: &mmate_core::MessageId) -> Self {
        Self { scope: Arc::clone(scope), id: id.clone() }
    }

    /// The scope.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.as_str()
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {:?}", self.id(), self.scope())
    }
}

/// A claim, as a store is asked for it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClaimRequest<'a> {
    /// What is claimed.
    pub key: RecordKey,
    /// Names this attempt to claim. Repeating a call keeps it; a new attempt has a new one.
    pub owner: Owner,
    /// What the message contains; absent if that is not to be compared.
    pub fingerprint: Option<Digest>,
    /// For how long nobody else may work on it.
    pub lease: Duration,
    /// Who asks.
    pub claimant: Claimant<'a>,
    /// The conversation, for who audits the records.
    pub correlation_id: Option<&'a str>,
    /// The message's type, for who audits the records.
    pub message_type: &'a str,
    /// Where in its trace the message is handled: what copies of it are linked to.
    pub trace: Option<TraceParent>,
}

impl<'a> ClaimRequest<'a> {
    /// A claim by a fresh owner; what is not given can be set afterwards.
    #[must_use]
    pub fn new(key: RecordKey, claimant: Claimant<'a>, lease: Duration) -> Self {
        Self {
            key,
            owner: Owner::generate(),
            fingerprint: None,
            lease,
            claimant,
            correlation_id: None,
            message_type: "",
            trace: None,
        }
    }
}

/// Who asks for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "callers without a broker make them")]
pub struct Claimant<'a> {
    /// The service.
    pub service: &'a str,
    /// The subscription.
    pub subscription: &'a str,
    /// The instance of the service.
    pub instance: &'a str,
}

/// The right to work on a key until the lease ends.
///
/// As an argument of a handler it gives the fence, for an effect that a paused and overtaken
/// process must not have any more:
///
/// ```
/// use mmate_core::HandlerError;
/// use mmate_idempotency::Permit;
///
/// async fn set_price(permit: Permit) -> Result<(), HandlerError> {
///     // UPDATE prices SET cents = $1, fence = $2 WHERE sku = $3 AND fence < $2
///     let fence = permit.fence();
/// #   let _ = fence;
///     Ok(())
/// }
/// # let _ = set_price;
/// ```
#[derive(Debug, Clone)]
pub struct Permit {
    key: RecordKey,
    holder: Holder,
    attempt: u32,
    /// Absent if nobody watches over it.
    lost: Option<Arc<Lost>>,
}

impl Permit {
    /// The right that a grant gives to who asked.
    #[must_use]
    pub fn new(request: &ClaimRequest<'_>, grant: Grant) -> Self {
        let holder = Holder { owner: request.owner, fence: grant.fence };
        Self { key: request.key.clone(), holder, attempt: grant.attempt, lost: None }
    }

    /// The same one, with what tells that it is lost.
    pub(crate) fn watched(mut self, lost: Arc<Lost>) -> Self {
        self.lost = Some(lost);
        self
    }

    /// What is worked on.
    #[must_use]
    pub fn key(&self) -> &RecordKey {
        &self.key
    }

    /// Who holds it.
    #[must_use]
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// Higher than that of every claim of this key before.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.holder.fence
    }

    /// Which attempt at this work it is, from 1, by the record. The broker counts failed attempts
    /// by itself; this count also has those that ended with their process.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Ready once the claim is lost: somebody took over, the lease ran out, or the handling ended
    /// without success and the claim was given back. Never ready after a success, nor for a permit
    /// that no strategy made.
    ///
    /// The handler itself needs no such thing: it is cancelled. This is for work that it has spawned
    /// and that would go on without it:
    ///
    /// ```
    /// use mmate_core::HandlerError;
    /// use mmate_idempotency::Permit;
    ///
    /// async fn encode(permit: Permit) -> Result<(), HandlerError> {
    ///     let lost = permit.lost();
    ///     let encoding = tokio::spawn(async {
    ///         tokio::select! {
    ///             () = lost => None,
    ///             film = encode_film() => Some(film),
    ///         }
    ///     });
    ///     encoding.await?.ok_or_else(|| HandlerError::retryable("the lease was lost"))?;
    ///     Ok(())
    /// }
    /// # async fn encode_film() {}
    /// # let _ = encode;
    /// ```
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let lost = self.lost.clone();
        async move {
            match lost {
                Some(lost) => lost.happens().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Whether the claim is lost, as far as is known here; see [`lost`](Self::lost). Work that
    /// blocks its thread looks here between its steps.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.as_ref().is_some_and(|lost| lost.is())
    }
}

/// Two are equal if they stand for the same claim.
impl PartialEq for Permit {
    fn eq(&self, other: &Self) -> bool {
        (&self.key, self.holder, self.attempt) == (&other.key, other.holder, other.attempt)
    }
}

impl Eq for Permit {}

#[async_trait]
impl<S: Store + ?Sized> Store for Arc<S> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn promises(&self) -> Promises {
        (**self).promises()
    }

    fn remembers(&self) -> Option<Retention> {
        (**self).remembers()
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        (**self).migrate().await
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        (**self).claim(request).await
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        (**self).heartbeat(permit, lease).await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        (**self).complete(permit, reply).await
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        (**self).release(permit).await
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        (**self).purge(at_most).await
    }
}
