//! Records in the memory of this process.

#[cfg(all(test, shuttle))]
mod explored;
mod ring;
mod shard;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use std::{fmt, iter};

use async_trait::async_trait;
use bytes::Bytes;

use self::shard::{KeyHash, Removed, Shard};
use super::{ClaimRequest, Clock, ManualClock, Permit, Promises, RecordKey, Store, StoreError};
use crate::metrics;
use crate::protocol::{Claim, Command, Held, Retention, Verdict};
use crate::sync::{Mutex, MutexGuard};

/// Records in the memory of this process: it recognises duplicates that this process sees in its
/// lifetime, and no others.
///
/// It is bounded by count and by time. When it is full, the record that has been Done for longest
/// is forgotten; one that is in progress never is. Forgetting a record before its window is over
/// is counted ([`evicted`](Self::evicted)), as duplicates of it would run again. A million Done
/// records take about 65 MiB; what they keep of replies and values comes on top of that.
///
/// Time is tokio's, so that tests with a paused clock wait for no lease.
///
/// Keys are kept as hashes of 128 bits with a secret of the process, so they cannot be made to
/// collide. Cheap to clone; clones share the records.
///
/// ```
/// use std::time::Duration;
/// use mmate_idempotency::{MemoryStore, Tracked};
///
/// let strategy = Tracked::new(MemoryStore::new().capacity(100_000).window(Duration::from_secs(3600)));
/// # let _ = strategy;
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    settings: Settings,
    inner: Arc<Inner>,
}

#[derive(Debug, Clone)]
struct Settings {
    capacity: usize,
    retention: Retention,
    clock: Clock,
}

struct Inner {
    settings: Settings,
    /// Two secrets, of 64 bits each as far as the hasher is concerned.
    hashers: [RandomState; 2],
    shards: Box<[Mutex<Shard>]>,
    evicted: AtomicU64,
}

/// Below this, one shard, so that what is forgotten first is exactly what is Done for longest.
const SHARDED_FROM: usize = 1 << 16;
const SHARDS: usize = 16;
const DEFAULT_CAPACITY: usize = 1_000_000;

impl MemoryStore {
    /// An empty store of a million records, with a window of seven days.
    #[must_use]
    pub fn new() -> Self {
        let settings = Settings {
            capacity: DEFAULT_CAPACITY,
            retention: Retention::default(),
            clock: Clock::even(),
        };
        Self::with(settings)
    }

    /// How many records are kept at most; a million by default. Records in progress are kept in
    /// any case.
    ///
    /// A store of 65,536 or more is made of 16 parts by hash, and a record is forgotten when its
    /// part is full.
    #[must_use]
    pub fn capacity(self, records: usize) -> Self {
        Self::with(Settings { capacity: records, ..self.settings })
    }

    /// For how long duplicates are recognised after the work was done; seven days by default.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        self.retention(Retention::window(window))
    }

    /// For how long records are kept.
    #[must_use]
    pub fn retention(self, retention: Retention) -> Self {
        Self::with(Settings { retention, ..self.settings })
    }

    /// Uses another clock, for tests.
    #[must_use]
    pub fn clock(self, clock: ManualClock) -> Self {
        Self::with(Settings { clock: Clock::Manual(clock), ..self.settings })
    }

    /// How many Done records were forgotten before their window was over, since the store was
    /// full.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.inner.evicted.load(Ordering::Relaxed)
    }

    /// How many records there are, in progress and given back ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn with(settings: Settings) -> Self {
        let shards = if settings.capacity < SHARDED_FROM { 1 } else { SHARDS };
        let shard_capacity = settings.capacity.div_ceil(shards);
        let shard = || Mutex::new(Shard::new(shard_capacity, settings.retention));
        let inner = Inner {
            settings: settings.clone(),
            hashers: [RandomState::new(), RandomState::new()],
            shards: iter::repeat_with(shard).take(shards).collect(),
            evicted: AtomicU64::new(0),
        };
        Self { settings, inner: Arc::new(inner) }
    }

    fn step(&self, key: &RecordKey, command: impl FnOnce(&mut Shard) -> Command) -> Verdict {
        let Inner { settings, shards, .. } = &*self.inner;
        let hash = self.hash(key);
        let mut shard = lock(&shards[hash.part(shards.len())]);
        let command = command(&mut shard);
        let (verdict, removed) = shard.step(hash, command, settings.clock.now());
        drop(shard);
        self.count(removed);
        verdict
    }

    fn count(&self, removed: Removed) {
        if removed.evicted > 0 {
            self.inner.evicted.fetch_add(removed.evicted, Ordering::Relaxed);
            metrics::evicted(NAME, removed.evicted);
        }
    }

    /// The lengths are part of what is hashed, so `a:b` with `c` is not `a` with `b:c`.
    fn hash(&self, key: &RecordKey) -> KeyHash {
        let text = (key.scope(), key.id());
        let [first, second] = &self.inner.hashers;
        KeyHash::new(first.hash_one(text), second.hash_one(text))
    }
}

const NAME: &str = "memory";

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A shard is changed only by code that does not panic.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        NAME
    }

    fn promises(&self) -> Promises {
        Promises { durable: false, shared: false, complete: false }
    }

    fn remembers(&self) -> Option<Retention> {
        Some(self.settings.retention)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        let command = |shard: &mut Shard| Command::Claim {
            owner: request.owner,
            by: shard.name(request.claimant.subscription),
            fingerprint: request.fingerprint,
            lease: request.lease,
            trace: request.trace,
        };
        match self.step(&request.key, command) {
            Verdict::Claim(claim) => Ok(claim),
            Verdict::Held(_) | Verdict::Purged(_) => unreachable!("a claim is answered by a claim"),
        }
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        Ok(self.held(permit, Command::Heartbeat { holder: permit.holder(), lease }))
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        Ok(self.held(permit, Command::Complete { holder: permit.holder(), reply }))
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        Ok(self.held(permit, Command::Release { holder: permit.holder() }))
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        let mut left = u64::from(at_most);
        for shard in &self.inner.shards {
            left -= lock(shard).purge(left, self.inner.settings.clock.now());
        }
        Ok(u64::from(at_most) - left)
    }
}

impl MemoryStore {
    fn held(&self, permit: &Permit, command: Command) -> Held {
        match self.step(permit.key(), |_| command) {
            Verdict::Held(held) => held,
            Verdict::Claim(_) | Verdict::Purged(_) => unreachable!("only claims and purges are"),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("records", &self.len())
            .field("evicted", &self.evicted())
            .finish_non_exhaustive()
    }
}
