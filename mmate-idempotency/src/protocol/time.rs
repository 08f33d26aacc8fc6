//! Moments by a store's clock.

use std::ops::Add;
use std::time::{Duration, SystemTime};

/// A moment by a store's clock, in milliseconds since 1970.
///
/// Only a store makes them: instances never compare a store's time with their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// So many milliseconds after the beginning of 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the beginning of 1970.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long it is until `later`; nothing if that is past.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    /// A part of a millisecond counts as a whole one, so that no lease is shorter than was asked.
    fn add(self, duration: Duration) -> Self {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)).min(LAST))
    }
}

/// The last moment that a signed 64-bit column can hold.
const LAST: u64 = i64::MAX as u64;

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        let since = Duration::from_millis(time.0);
        Self::UNIX_EPOCH.checked_add(since).unwrap_or(Self::UNIX_EPOCH)
    }
}
