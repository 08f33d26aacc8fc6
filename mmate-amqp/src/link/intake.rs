//! What comes in on a connection, as seen by those who do not read it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared by the stream that is read and the session that it belongs to. Cheap to clone.
///
/// The session learns when something came last, and which deliveries came without their bodies
/// since these were larger than a channel takes. Which they are is known by channel and delivery
/// tag, which no publisher has a say in.
#[derive(Debug, Clone)]
pub(crate) struct Intake(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    begin: Instant,
    /// In milliseconds since the begin.
    last_read: AtomicU64,
    /// The lowest limit of any channel: most bodies are below, and need no lock.
    lowest: AtomicU64,
    /// How many deliveries there are in the list of those without a body.
    without: AtomicUsize,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    /// How many bytes a body may have, by channel.
    limits: HashMap<u16, u64>,
    /// How many bytes the bodies had that were left out, by channel and delivery tag.
    without: HashMap<(u16, u64), u64>,
}

impl Default for Intake {
    fn default() -> Self {
        Self(Arc::new(Shared {
            begin: Instant::now(),
            last_read: AtomicU64::new(0),
            lowest: AtomicU64::new(u64::MAX),
            without: AtomicUsize::new(0),
            lists: Mutex::default(),
        }))
    }
}

impl Intake {
    /// Something was read.
    pub(super) fn read(&self) {
        let millis = self.0.begin.elapsed().as_millis();
        self.0.last_read.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// For how long nothing was read.
    pub(super) fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.0.last_read.load(Ordering::Relaxed));
        self.0.begin.elapsed().saturating_sub(last)
    }

    /// How many bytes the body of a delivery on this channel may have, from now on. Numbers of
    /// channels are used again, so each that is consumed on says it, or that there is no limit.
    pub(super) fn limit(&self, channel: u16, bytes: Option<u64>) {
        let mut lists = self.lists();
        match bytes {
            Some(bytes) => lists.limits.insert(channel, bytes),
            None => lists.limits.remove(&channel),
        };
        let lowest = lists.limits.values().min().copied().unwrap_or(u64::MAX);
        self.0.lowest.store(lowest, Ordering::SeqCst);
    }

    /// A delivery is announced. Returns whether its body is to be left out.
    pub(super) fn leaves_out(&self, channel: u16, tag: u64, bytes: u64) -> bool {
        let may_be_large = bytes > self.0.lowest.load(Ordering::SeqCst);
        if !may_be_large && self.0.without.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let mut lists = self.lists();
        let leaves_out = lists.limits.get(&channel).is_some_and(|limit| bytes > *limit);
        match leaves_out {
            true => lists.without.insert((channel, tag), bytes),
            // One that nobody asked for, of an earlier channel of this number.
            false => lists.without.remove(&(channel, tag)),
        };
        self.0.without.store(lists.without.len(), Ordering::SeqCst);
        leaves_out
    }

    /// How many bytes the body of a delivery had, if it was left out. Tells it once.
    pub(super) fn left_out(&self, channel: u16, tag: u64) -> Option<u64> {
        if self.0.without.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut lists = self.lists();
        let bytes = lists.without.remove(&(channel, tag));
        self.0.without.store(lists.without.len(), Ordering::SeqCst);
        bytes
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        // Nothing panics while it is held.
        self.0.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_left_out_above_the_limit_of_their_channel_and_told_once() {
        let intake = Intake::default();
        intake.limit(1, Some(10));
        intake.limit(2, Some(1_000));
        assert!(!intake.leaves_out(1, 1, 10) && intake.leaves_out(1, 2, 11));
        assert!(!intake.leaves_out(2, 2, 11) && !intake.leaves_out(3, 2, 1 << 40));
        assert_eq!([intake.left_out(1, 1), intake.left_out(2, 2)], [None, None]);
        assert_eq!([intake.left_out(1, 2), intake.left_out(1, 2)], [Some(11), None]);
    }

    #[test]
    fn what_was_left_out_on_an_earlier_channel_of_the_same_number_is_no_news() {
        let intake = Intake::default();
        intake.limit(1, Some(10));
        assert!(intake.leaves_out(1, 1, 11));
        intake.limit(1, None);
        assert!(!intake.leaves_out(1, 1, 5));
        assert_eq!(intake.left_out(1, 1), None);
    }

    #[test]
    fn silence_ends_with_what_is_read() {
        let intake = Intake::default();
        std::thread::sleep(Duration::from_millis(30));
        assert!(intake.silence() >= Duration::from_millis(30));
        let before = intake.silence();
        intake.read();
        assert!(intake.silence() < before);
    }
}
