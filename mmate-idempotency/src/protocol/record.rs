//! What a store keeps for one key.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mmate_core::TraceParent;
use sha2::{Digest as _, Sha256};

use super::Time;

/// What a store keeps for one key. A key without a record is absent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Record {
    /// Rises with every claim that is granted, and never falls.
    pub fence: u64,
    /// Where the work stands.
    pub state: State,
}

/// Where the work on a key stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the protocol has these three states and no other")]
pub enum State {
    /// Somebody works on it.
    InProgress(Work),
    /// As good as absent: the last claim was given back. What is kept makes fence and attempt go
    /// on where they were.
    Released {
        /// The number of the attempt that was given back.
        attempt: u32,
        /// Until when it is kept.
        until: Time,
    },
    /// It is done; copies of it are duplicates.
    Done(Done),
}

/// A claim that is held.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Work {
    /// Who holds it.
    pub owner: Owner,
    /// The subscription it was claimed through.
    pub by: Arc<str>,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// Whether somebody held it before, whose lease ran out.
    pub taken_over: bool,
    /// What the message contains.
    pub fingerprint: Option<Digest>,
    /// When the lease runs out, and somebody else may take over.
    pub lease_until: Time,
    /// Until when the record is kept if nobody comes back to it.
    pub until: Time,
    /// Where in its trace the work is done.
    pub trace: Option<TraceParent>,
}

/// Work that is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Done {
    /// The subscription that did it.
    pub by: Arc<str>,
    /// What the message contained.
    pub fingerprint: Option<Digest>,
    /// Since when it is done.
    pub since: Time,
    /// Until when copies are recognised; for ever if absent.
    pub until: Option<Time>,
    /// The reply that was given.
    pub reply: Option<Bytes>,
    /// Where in its trace it was done.
    pub trace: Option<TraceParent>,
}

impl Record {
    /// Until when it is kept; for ever if absent. From then on it counts as absent, whether it was
    /// purged or not.
    #[must_use]
    pub fn until(&self) -> Option<Time> {
        match &self.state {
            State::InProgress(work) => Some(work.until),
            State::Released { until, .. } => Some(*until),
            State::Done(done) => done.until,
        }
    }

    /// One of that fence and state, as read from a store.
    #[must_use]
    pub fn new(fence: u64, state: State) -> Self {
        Self { fence, state }
    }

    pub(super) fn is_over(&self, now: Time) -> bool {
        self.until().is_some_and(|until| until <= now)
    }
}

/// Names one attempt to claim: no two have the same.
///
/// The same one asked again recognises what it was granted, so an answer that got lost does no
/// harm.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner([u8; 16]);

impl Owner {
    /// A fresh one: unique in this process by counting, among processes by chance of 2⁻⁶⁴.
    #[must_use]
    pub fn generate() -> Self {
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let process = PROCESS.get_or_init(|| {
            let random = uuid::Uuid::now_v7().as_u64_pair().1;
            random ^ fastrand::u64(..)
        });
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&process.to_be_bytes());
        bytes[8..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Self(bytes)
    }

    /// One with these bytes, as read from a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// What a message or a request contains, in 16 bytes: half of a SHA-256.
///
/// ```
/// use mmate_idempotency::protocol::Digest;
/// assert_eq!(Digest::of(b"a body"), Digest::of("a body"));
/// // Each part with its length, so that no byte can be of the one or of the other.
/// assert_ne!(Digest::of_parts(["ab", "c"]), Digest::of_parts(["a", "bc"]));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 16]);

impl Digest {
    /// That of a content.
    #[must_use]
    pub fn of(content: impl AsRef<[u8]>) -> Self {
        Self::half(Sha256::digest(content))
    }

    /// That of a content in several parts, such as the method, the path and the body of a request.
    #[must_use]
    pub fn of_parts(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            let part = part.as_ref();
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self::half(hash.finalize())
    }

    fn half(whole: impl Into<[u8; 32]>) -> Self {
        let whole = whole.into();
        Self(*whole.first_chunk().expect("a SHA-256 has more than 16 bytes"))
    }

    /// One with these bytes, as read from a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

fn hex(bytes: [u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{:032x}", u128::from_be_bytes(bytes))
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(self.0, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(self.0, f)
    }
}

/// How long records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    window: Option<Duration>,
}

/// What is kept of failed and abandoned work if the window has no end.
const LONGEST_MEMORY_OF_FAILURES: Duration = Duration::from_secs(30 * 24 * 3600);

impl Retention {
    /// Copies are recognised for this long after the work was done. What was given up or abandoned
    /// is forgotten after the same time.
    #[must_use]
    pub const fn window(window: Duration) -> Self {
        Self { window: Some(window) }
    }

    /// Copies are recognised for ever. What was given up or abandoned is forgotten after 30 days.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self { window: None }
    }

    /// How long after the work was done copies are recognised; for ever if absent.
    #[must_use]
    pub const fn of_done(&self) -> Option<Duration> {
        self.window
    }

    /// How long is remembered what was given back or abandoned.
    #[must_use]
    pub fn of_failures(&self) -> Duration {
        self.window.unwrap_or(LONGEST_MEMORY_OF_FAILURES)
    }
}

impl Default for Retention {
    /// Seven days.
    fn default() -> Self {
        Self::window(Duration::from_secs(7 * 24 * 3600))
    }
}
