//! Idempotency without a broker: work of any kind, once per key.

mod call;
mod error;
mod flight;
mod job;
mod value;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mmate_core::health::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use tokio::time::timeout;

pub use self::call::Run;
pub use self::error::RunError;
use self::flight::Flights;
pub use self::value::Ran;
use self::value::{Codec, Coding};
use crate::protocol::Digest;
use crate::store::{Claimant, Permit, RecordKey, Store, StoreError, StoreErrorKind};
use crate::strategy::lease::Leases;
use crate::strategy::outage::{self, Patience};
use crate::strategy::{PURGE_EVERY, REPLY_LIMIT};

/// Runs work once per key, without a broker: in an HTTP or RPC handler, a scheduled job, a
/// get-or-create. The first call with a key runs its work and records the value; all others get that
/// value, also those that come while it runs, here or in another process.
///
/// ```
/// use mmate_idempotency::protocol::Digest;
/// use mmate_idempotency::store::RecordKey;
/// use mmate_idempotency::{Idempotent, MemoryStore, Ran};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// async fn charge(cents: u64) -> Result<String, std::io::Error> {
///     Ok(format!("charged {cents}"))
/// }
///
/// let payments = Idempotent::new(MemoryStore::new());
/// let pay = |cents: u64| {
///     let key = RecordKey::new("payments/customer-1", "the-clients-key")?;
///     let request = Digest::of(cents.to_string());
///     Ok::<_, mmate_core::InvalidId>(payments.run(key, request, charge(cents)))
/// };
/// assert_eq!(pay(995)?.await?, Ran::Fresh("charged 995".to_owned()));
/// assert_eq!(pay(995)?.await?, Ran::Replayed("charged 995".to_owned()));
/// // The same key for something else.
/// assert!(pay(5)?.await.is_err());
/// # Ok(()) }
/// ```
///
/// It is the protocol of [`Tracked`](crate::Tracked), with the same promises, which depend on the
/// store: with one that is durable and shared, of all the calls with a key one work completes, as
/// long as it prolongs its lease. A process that dies between the effect of the work and its record
/// leaves a key whose work runs a second time, after the lease.
///
/// An error of the work is not kept: the next call runs its work
/// ([`keep_errors`](Run::keep_errors) changes that). While the store does not answer nothing runs.
///
/// Cheap to clone; clones share the store, and wait for each other.
#[derive(Clone)]
#[must_use = "it does nothing until something is run"]
pub struct Idempotent {
    settings: Settings,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
struct Settings {
    lease: Duration,
    wait: Duration,
    patience: Patience,
    value_limit: usize,
    purge_every: Duration,
    service: Arc<str>,
    instance: Arc<str>,
}

/// What the clones share.
struct Shared {
    leases: Arc<Leases>,
    flights: Arc<Flights>,
    prepared: OnceCell<()>,
}

const DEFAULT_LEASE: Duration = Duration::from_secs(60);
const SHORTEST_LEASE: Duration = Duration::from_millis(10);
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// Somebody waits for an answer, and can ask again.
const DEFAULT_PATIENCE: Patience =
    Patience { answer: Duration::from_secs(5), outage: Duration::from_secs(5) };

impl Idempotent {
    /// Records in that store.
    pub fn new(store: impl Store) -> Self {
        let settings = Settings {
            lease: DEFAULT_LEASE,
            wait: DEFAULT_WAIT,
            patience: DEFAULT_PATIENCE,
            value_limit: REPLY_LIMIT,
            purge_every: PURGE_EVERY,
            service: "".into(),
            instance: "".into(),
        };
        let shared = Shared {
            leases: Leases::new(store),
            flights: Arc::default(),
            prepared: OnceCell::new(),
        };
        Self { settings, shared: Arc::new(shared) }
    }

    /// How long a claim holds without a heartbeat, and so how long a key is blocked if the process
    /// that works on it dies; 60 s by default, 10 ms at least. It is prolonged at every third of it
    /// for as long as the work runs.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.max(SHORTEST_LEASE);
        self
    }

    /// How long a call waits for another one, here or in another process, that works on the same
    /// key; 30 s by default. Then it is [`RunError::Busy`]. With zero it does not wait at all.
    ///
    /// It does not limit how long the call's own work may take.
    pub fn wait(mut self, limit: Duration) -> Self {
        self.settings.wait = limit;
        self
    }

    /// How large a value may be to be kept, in bytes of JSON; 64 KiB by default. A larger one is
    /// [`RunError::TooLarge`].
    pub fn value_limit(mut self, bytes: usize) -> Self {
        self.settings.value_limit = bytes;
        self
    }

    /// How long one answer of the store may take; 5 s by default.
    pub fn answer_timeout(mut self, limit: Duration) -> Self {
        self.settings.patience.answer = limit;
        self
    }

    /// How long a call waits for a store that does not answer, before its work began; 5 s by
    /// default. Then it is [`RunError::Store`], and nothing ran.
    ///
    /// After the work it is tried to record its value for as long as the lease lasts, if that is
    /// longer.
    pub fn outage_patience(mut self, limit: Duration) -> Self {
        self.settings.patience.outage = limit;
        self
    }

    /// How often records whose time is over are removed; about once a minute by default.
    pub fn purge_every(mut self, pause: Duration) -> Self {
        self.settings.purge_every = pause;
        self
    }

    /// The names of the service and of this instance of it, for who audits the records.
    pub fn named(mut self, service: impl Into<Arc<str>>, instance: impl Into<Arc<str>>) -> Self {
        self.settings.service = service.into();
        self.settings.instance = instance.into();
        self
    }

    /// Makes the store ready, such as its table, or checks it. The first call does so if nobody did
    /// before; done when the process starts, what is wrong shows then.
    ///
    /// # Errors
    /// When the store cannot be used, or does not answer in time.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        const PREPARING: &str = "make the store ready";
        let Settings { patience, lease, purge_every, .. } = self.settings;
        let leases = &self.shared.leases;
        let prepare = self.shared.prepared.get_or_try_init(|| async {
            outage::ask(patience, PREPARING, leases.store().migrate()).await?;
            leases.begin(lease, purge_every);
            Ok(())
        });
        let limit = patience.answer + patience.outage;
        match timeout(limit, prepare).await {
            Ok(prepared) => prepared.map(drop),
            Err(_) => {
                let text = format!("it is not ready after {limit:?}");
                Err(StoreError::new(StoreErrorKind::Unavailable, PREPARING, text))
            }
        }
    }

    /// Runs the work of the first call with this key, and gives its value to all.
    ///
    /// The fingerprint ([`Digest::of`]) tells two contents under one key apart: a call with another
    /// one than the first is [`RunError::Conflict`]. With `None` that is not looked at.
    ///
    /// The work is a task of its own: if the caller is dropped, as an HTTP server does when its
    /// client hangs up, it goes on, and its value is kept. (A caller that is dropped before its work
    /// began leaves that to the next one.) For work that borrows from the caller there is
    /// [`here`](Run::here). A panic of the work goes on in the caller; the claim is given back.
    ///
    /// # Errors
    /// See [`RunError`]; it is awaited like a future.
    pub fn run<D, W, T, E>(
        &self,
        key: RecordKey,
        fingerprint: D,
        work: W,
    ) -> Run<impl FnOnce(Permit) -> W + use<D, W, T, E>, T, E>
    where
        D: Into<Option<Digest>>,
        W: Future<Output = Result<T, E>>,
        T: Serialize + DeserializeOwned,
    {
        self.call(key, fingerprint.into(), |_| work, Coding::json())
    }

    /// As [`run`](Self::run), for work that is given its [`Permit`], whose fence an effect can
    /// check.
    ///
    /// ```
    /// use mmate_idempotency::store::RecordKey;
    /// use mmate_idempotency::{Idempotent, MemoryStore, Permit};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let prices = Idempotent::new(MemoryStore::new());
    /// let key = RecordKey::new("prices", "sku-1:2024-05-01")?;
    /// let set_price = async |permit: Permit| {
    ///     // UPDATE prices SET cents = $1, fence = $2 WHERE sku = $3 AND fence < $2
    ///     Ok::<_, std::io::Error>(permit.fence() > 0)
    /// };
    /// assert!(prices.run_with(key, None, set_price).await?.into_value());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn run_with<D, F, W, T, E>(&self, key: RecordKey, fingerprint: D, work: F) -> Run<F, T, E>
    where
        D: Into<Option<Digest>>,
        F: FnOnce(Permit) -> W,
        W: Future<Output = Result<T, E>>,
        T: Serialize + DeserializeOwned,
    {
        self.call(key, fingerprint.into(), work, Coding::json())
    }

    /// As [`run`](Self::run), for a value that is bytes already and is kept as it is.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn run_bytes<D, W, E>(
        &self,
        key: RecordKey,
        fingerprint: D,
        work: W,
    ) -> Run<impl FnOnce(Permit) -> W + use<D, W, E>, Bytes, E>
    where
        D: Into<Option<Digest>>,
        W: Future<Output = Result<Bytes, E>>,
    {
        self.call(key, fingerprint.into(), |_| work, Coding::raw())
    }

    /// Waits for the work that is under way and for what is left to be recorded, at the end of a
    /// process. What takes longer is told in the log, and ends with its lease.
    pub async fn finish(&self, limit: Duration) {
        self.shared.leases.settle(limit).await;
    }

    /// Asks the store once whether it answers, in one round trip that writes nothing. What comes of it
    /// shows in [`status`](Self::status) too: so called now and then, that tells how the store is
    /// though nobody uses it.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.prepare().await.inspect_err(|error| self.shared.leases.note(error))?;
        self.shared.leases.ping(self.settings.patience.answer).await
    }

    /// How the store is, for a page about health: degraded for 15 s after each of its failures, with
    /// what it said.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), mmate_idempotency::StoreError> {
    /// use mmate_idempotency::{Idempotent, MemoryStore};
    ///
    /// let payments = Idempotent::new(MemoryStore::new());
    /// payments.ping().await?; // every few seconds, say
    /// assert!(payments.status().is_up());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.leases.status("calls fail meanwhile")
    }

    fn call<F, T, E>(
        &self,
        key: RecordKey,
        fingerprint: Option<Digest>,
        work: F,
        value: Coding<T>,
    ) -> Run<F, T, E> {
        let codec = Codec { value, errors: None };
        Run { idempotent: self.clone(), key, fingerprint, work, codec }
    }
}

impl Settings {
    fn claimant(&self) -> Claimant<'_> {
        Claimant { service: &self.service, subscription: "run", instance: &self.instance }
    }
}

impl fmt::Debug for Idempotent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotent")
            .field("store", &self.shared.leases.name())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
