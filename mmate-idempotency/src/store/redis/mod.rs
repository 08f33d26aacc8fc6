//! Records in Redis.

mod calls;
mod eval;
mod failure;
mod keeping;
mod key;
mod link;
mod place;
mod script;
#[cfg(feature = "redis-tls")]
mod tls;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::calls::Calls;
pub(crate) use self::eval::Code;
use self::failure::failed;
use self::keeping::Keeping;
pub use self::key::InvalidPrefix;
use self::key::Prefix;
use self::link::{Link, silence};
use self::place::Tls;
use self::script::Settings;
#[cfg(feature = "redis-tls")]
pub use self::tls::RedisTls;
use super::coalesce::{Call, Coalescer};
use super::{ClaimRequest, ManualClock, Permit, Promises, Store, StoreError, StoreErrorKind};
use crate::protocol::{Claim, Held, Retention};

/// Records in Redis, for as long as Redis keeps them: on one server, on the master that Sentinels
/// name, or in a cluster.
///
/// Every call is one script run by the server, by the server's clock, and calls that come at the
/// same time share a round trip. Records whose time is over go by themselves, so there is nothing
/// to [purge](Store::purge).
///
/// ```
/// use mmate_idempotency::{RedisStore, Tracked};
/// # async fn show() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::connect("redis://127.0.0.1:6379/").await?;
/// let strategy = Tracked::new(store.prefix("shop")?);
/// # let _ = strategy; Ok(()) }
/// ```
///
/// # What Redis forgets
///
/// A server without an append-only file forgets everything when it restarts; one with a
/// `maxmemory-policy` other than `noeviction` drops records when its memory is full; a replica that
/// becomes the master lacks what had not reached it. What was forgotten runs again when another copy
/// of its message comes: no message is lost by it, but its effect may be there twice. So nothing is
/// [promised](Store::promises) but what was asked for with [`assume_durable`](Self::assume_durable)
/// and looked at, and [`migrate`](Store::migrate) warns of a server that forgets.
///
/// Where that is not good enough, take `Transactional` or `Tracked` with an SQL store.
///
/// Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct RedisStore {
    desk: Coalescer<Calls>,
    assume_durable: bool,
    /// What the servers said when they were last looked at.
    keeping: Arc<Mutex<Option<Keeping>>>,
}

/// Long enough for a server that waits for its disk.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

impl RedisStore {
    /// Records on one server; `url` is `redis://[user][:password@]host[:port][/database]`, or
    /// `unix:///path/of/a.sock`. With the feature `redis-tls`, `rediss://` is TLS; certificates are
    /// always verified.
    ///
    /// A connection that breaks is made anew.
    ///
    /// # Errors
    /// When the URL is not one, or the server cannot be reached or refuses.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, StoreError> {
        Self::on(place::node(url.as_ref(), &Tls::default())?).await
    }

    /// Records on the server that is the master of that name, by these Sentinels; after a failover,
    /// on the new one.
    ///
    /// User, password and database of the first URL are those of the servers. The Sentinels are
    /// asked without a password first, and with the same one if they insist.
    ///
    /// ```
    /// use mmate_idempotency::RedisStore;
    /// # async fn show() -> Result<(), Box<dyn std::error::Error>> {
    /// let sentinels = ["redis://sentinel-1:26379", "redis://sentinel-2:26379"];
    /// let store = RedisStore::sentinel("mymaster", sentinels).await?;
    /// # let _ = store; Ok(()) }
    /// ```
    ///
    /// A failover may forget the last records. With `min-replicas-to-write 1` on the servers, a
    /// master that was cut off stops granting claims.
    ///
    /// # Errors
    /// When a URL is not one, or no Sentinel knows a master that can be reached.
    pub async fn sentinel<U: AsRef<str>>(
        master_name: impl AsRef<str>,
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, StoreError> {
        Self::on(place::sentinel(master_name.as_ref(), urls, &Tls::default())?).await
    }

    /// Records in a cluster, of which these are some nodes. Records spread evenly over the nodes,
    /// whatever the ids are.
    ///
    /// User and password of the first URL are those of all nodes.
    ///
    /// ```
    /// use mmate_idempotency::RedisStore;
    /// # async fn show() -> Result<(), Box<dyn std::error::Error>> {
    /// let nodes = ["redis://node-1:6379", "redis://node-2:6379", "redis://node-3:6379"];
    /// let store = RedisStore::cluster(nodes).await?;
    /// # let _ = store; Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When a URL is not one, or no node can be reached.
    pub async fn cluster<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
    ) -> Result<Self, StoreError> {
        Self::on(place::cluster(urls, &Tls::default())?).await
    }

    async fn on(link: Link) -> Result<Self, StoreError> {
        let link = Arc::new(link);
        link.wire(RESPONSE_TIMEOUT).await?;
        let calls = Calls { link, settings: Settings::default(), limit: RESPONSE_TIMEOUT };
        Ok(Self { desk: calls.desk(), assume_durable: false, keeping: Arc::default() })
    }

    fn with(mut self, change: impl FnOnce(&mut Calls)) -> Self {
        let mut calls = self.calls().clone();
        change(&mut calls);
        self.desk = calls.desk();
        self
    }

    fn calls(&self) -> &Calls {
        self.desk.store()
    }

    /// What all keys begin with, instead of `mmate`: to be apart from others in the same database.
    /// What follows is a colon, two braces, the scope's length, the scope and the id.
    ///
    /// # Errors
    /// When it is empty, longer than 63 bytes, or has anything but letters, digits and `_-./`.
    pub fn prefix(self, prefix: impl AsRef<str>) -> Result<Self, InvalidPrefix> {
        let prefix = Prefix::parse(prefix.as_ref())?;
        Ok(self.with(|calls| calls.settings.prefix = prefix))
    }

    /// For how long duplicates are recognised after the work was done; seven days by default.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        self.retention(Retention::window(window))
    }

    /// For how long records are kept.
    #[must_use]
    pub fn retention(self, retention: Retention) -> Self {
        self.with(|calls| calls.settings.retention = retention)
    }

    /// Uses another clock than the server's own, for tests.
    #[must_use]
    pub fn clock(self, clock: ManualClock) -> Self {
        self.with(|calls| calls.settings.clock = Some(clock))
    }

    /// How long one answer of the server may take, and the making of a connection; 3 s by default.
    /// After that the connection is given up, and it is not known whether it was done.
    #[must_use]
    pub fn response_timeout(self, limit: Duration) -> Self {
        self.with(|calls| calls.limit = limit)
    }

    /// Promises that what is Done is kept: the server has `appendonly yes`, `appendfsync always` and
    /// `maxmemory-policy noeviction` (or memory without bounds).
    ///
    /// [`migrate`](Store::migrate) looks whether that is so, and fails if it is not; what a server
    /// does not let be read is taken on your word. Behind Sentinels and in a cluster it is never
    /// promised to be durable, since a failover forgets.
    #[must_use]
    pub fn assume_durable(mut self) -> Self {
        self.assume_durable = true;
        self
    }

    fn looked(&self) -> Option<Keeping> {
        *self.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the servers how they keep their data.
    async fn look(&self) -> Result<Keeping, StoreError> {
        const LOOKING: &str = "look at how Redis keeps its data";
        let Calls { link, limit, .. } = self.calls().clone();
        let wire = link.wire(limit).await?;
        let asked = tokio::time::timeout(limit, Keeping::ask(&wire)).await;
        let keeping = match asked.unwrap_or_else(|_| Err(silence(limit))) {
            Ok(keeping) => keeping,
            Err(error) if error.code() == Some("NOPERM") => Keeping::default(),
            Err(error) => {
                link.give_up(&wire).await;
                return Err(failed(LOOKING)(error));
            }
        };
        *self.keeping.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeping);
        Ok(keeping)
    }
}

#[async_trait]
impl Store for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    /// Before [`migrate`](Store::migrate) has looked at the servers, no more than that it is shared.
    fn remembers(&self) -> Option<Retention> {
        Some(self.calls().settings.retention)
    }

    fn promises(&self) -> Promises {
        let looked = self.looked();
        let complete = looked.is_some_and(|keeping| {
            keeping.evicts == Some(false) || (keeping.evicts.is_none() && self.assume_durable)
        });
        let durable = self.assume_durable
            && !self.calls().link.fails_over()
            && looked.is_some_and(|keeping| keeping.flaws().is_empty());
        Promises { durable, shared: true, complete }
    }

    /// Redis needs no preparation. What is looked at is how it keeps its data.
    async fn migrate(&self) -> Result<(), StoreError> {
        let flaws = self.look().await?.flaws().join("; ");
        if flaws.is_empty() {
            return Ok(());
        }
        if self.assume_durable {
            let text = format!("{flaws}; configure it otherwise, or go without .assume_durable()");
            let attempted = "rely on Redis to keep its data";
            return Err(StoreError::new(StoreErrorKind::Permanent, attempted, text));
        }
        tracing::warn!(
            redis = ?self.calls().link,
            flaws,
            "a Redis may forget what was done; copies of messages then run again"
        );
        Ok(())
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        self.desk.claim(request).await
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        self.desk.held(Call::Heartbeat { permit: permit.clone(), lease }).await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        self.desk.held(Call::Complete { permit: permit.clone(), reply }).await
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        self.desk.held(Call::Release { permit: permit.clone() }).await
    }

    /// Nothing: Redis forgets each record by itself when its time is over.
    async fn purge(&self, _: u32) -> Result<u64, StoreError> {
        Ok(0)
    }
}

impl fmt::Debug for RedisStore {
    /// Without user names and passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("at", &self.calls().link)
            .field("settings", &self.calls().settings)
            .finish_non_exhaustive()
    }
}
