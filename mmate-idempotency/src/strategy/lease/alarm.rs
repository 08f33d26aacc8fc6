//! A clock that no handler can stop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Wakes a task at a time, from a thread outside of the runtime.
///
/// A runtime's timers and sockets are looked at by whichever of its threads has nothing to do. That
/// one runs what it finds to be ready, and where this is a single task it wakes no other thread for
/// it; if the task blocks, nobody looks at timers any more, though the other threads are idle. What is
/// woken from outside has one of them wake up, which then looks at all of them.
pub(super) struct Alarm {
    set: Mutex<Set>,
    rings: Notify,
}

#[derive(Default)]
struct Set {
    at: Option<Instant>,
    thread: Option<Thread>,
    /// When the thread looks again.
    looks_at: Option<Instant>,
}

/// The thread looks at the time as often, and not more often than that while the task does not come.
const SELDOM: Duration = Duration::from_secs(10);
const OFTEN: Duration = Duration::from_millis(10);

impl Alarm {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { set: Mutex::default(), rings: Notify::new() })
    }

    /// Starts its thread, if it has none. The thread ends with the alarm.
    pub(super) fn start(self: &Arc<Self>) {
        let mut set = self.set();
        if set.thread.is_some() {
            return;
        }
        let alarm = Arc::downgrade(self);
        match thread::Builder::new().name("mmate-leases".to_owned()).spawn(move || watch(&alarm)) {
            Ok(thread) => set.thread = Some(thread.thread().clone()),
            Err(error) => tracing::warn!(
                %error,
                "failed to start the thread that sees to leases while handlers block: a handler \
                 that blocks its thread may lose its lease"
            ),
        }
    }

    /// Rings at that time, and no more at the one that was set before.
    pub(super) fn set_to(&self, at: Instant) {
        self.set().to(at);
    }

    /// Rings at that time, if it would not before.
    pub(super) fn set_back_to(&self, at: Instant) {
        let mut set = self.set();
        if set.at.is_none_or(|before| at < before) {
            set.to(at);
            if set.thread.is_none() {
                self.rings.notify_one();
            }
        }
    }

    /// Rings at once.
    pub(super) fn ring(&self) {
        self.rings.notify_one();
    }

    pub(super) async fn rung(&self) {
        self.rings.notified().await;
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        // Nothing panics while the lock is held.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    fn to(&mut self, at: Instant) {
        self.at = Some(at);
        if let (Some(thread), Some(looks_at)) = (&self.thread, self.looks_at)
            && at < looks_at
        {
            thread.unpark();
        }
    }

    /// For how long the thread rests now. It is to ring if that is as short as can be.
    fn rest(&mut self) -> Duration {
        let now = Instant::now();
        let rest = self.at.map_or(SELDOM, |at| at.saturating_duration_since(now).min(SELDOM));
        self.looks_at = Some(now + rest.max(OFTEN));
        rest
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(thread) = &self.set().thread {
            thread.unpark();
        }
    }
}

fn watch(alarm: &Weak<Alarm>) {
    while let Some(alarm) = alarm.upgrade() {
        let rest = alarm.set().rest();
        if rest.is_zero() {
            alarm.ring();
        }
        drop(alarm);
        thread::park_timeout(rest.max(OFTEN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_ends_with_the_alarm() {
        let alarm = Alarm::new();
        let watching = Arc::downgrade(&alarm);
        let thread = thread::spawn(move || watch(&watching));
        alarm.set().thread = Some(thread.thread().clone());
        drop(alarm);
        thread.join().expect("it ends");
    }

    #[tokio::test]
    async fn it_rings_in_time_though_it_is_set_while_its_thread_rests() {
        let alarm = Alarm::new();
        alarm.start();
        while alarm.set().looks_at.is_none() {
            tokio::task::yield_now().await;
        }
        let begin = Instant::now();
        alarm.set_to(begin + OFTEN);
        alarm.rung().await;
        assert!(begin.elapsed() < SELDOM / 2, "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn it_rings_when_it_is_set_to_and_when_it_is_set_back_to() {
        let alarm = Alarm::new();
        alarm.start();
        let begin = Instant::now();
        alarm.set_to(begin + SELDOM * 100);
        alarm.set_back_to(begin + SELDOM * 200);
        alarm.set_back_to(begin + OFTEN * 3);
        alarm.rung().await;
        assert!(begin.elapsed() >= OFTEN * 3);
        assert!(begin.elapsed() < SELDOM / 2, "{:?}", begin.elapsed());
    }
}
