//! What time it is for a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::protocol::Time;

/// A clock that stands still until it is moved: for tests of leases and windows.
///
/// ```
/// use std::time::Duration;
/// use mmate_idempotency::{MemoryStore, store::ManualClock};
///
/// let clock = ManualClock::new();
/// let store = MemoryStore::new().clock(clock.clone());
/// clock.advance(Duration::from_secs(3600));
/// # let _ = store;
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at the present time.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(wall_clock().as_millis())))
    }

    /// A clock that stands at that time.
    #[must_use]
    pub fn at(time: Time) -> Self {
        Self(Arc::new(AtomicU64::new(time.as_millis())))
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::from_millis(self.0.load(Ordering::SeqCst))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        let moved = self.now() + by;
        self.0.store(moved.as_millis(), Ordering::SeqCst);
        MOVES.fetch_add(1, Ordering::SeqCst);
    }

    /// Moves it back, as somebody may who sets the clock of a machine.
    pub fn turn_back(&self, by: Duration) {
        let by = (Time::default() + by).as_millis();
        let moved = self.now().as_millis().saturating_sub(by);
        self.0.store(moved, Ordering::SeqCst);
        MOVES.fetch_add(1, Ordering::SeqCst);
    }
}

/// How often any clock for tests was moved in this process: what is known of a store's records by another clock than its
/// own may be over then.
static MOVES: AtomicU64 = AtomicU64::new(0);

pub(crate) fn moves_of_manual_clocks() -> u64 {
    MOVES.load(Ordering::SeqCst)
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

/// The clock of a store in this process.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// Begins at the wall clock's time and then runs evenly: no change of the wall clock ends a
    /// lease or opens a window. It is tokio's time, which tests may pause.
    Even {
        began: Instant,
        began_at: Time,
    },
    Manual(ManualClock),
}

impl Clock {
    pub(crate) fn even() -> Self {
        Self::Even { began: Instant::now(), began_at: wall_clock() }
    }

    pub(crate) fn now(&self) -> Time {
        match self {
            // Not rounded up: a clock that shows a moment before it has come could end a lease
            // early.
            Self::Even { began, began_at } => {
                let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                Time::from_millis(began_at.as_millis().saturating_add(millis))
            }
            Self::Manual(clock) => clock.now(),
        }
    }
}

pub(crate) fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
