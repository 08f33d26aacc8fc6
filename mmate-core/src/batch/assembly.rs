//! Batches whose messages middleware has chosen.

#[cfg(all(test, shuttle))]
mod explored;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::BatchPolicy;
use crate::context::Extensions;
use crate::sync::{AtomicBool, Mutex, MutexGuard};

/// How the batches of a subscription gather, for middleware that gathers them itself; see
/// [`Context::batches`](crate::Context::batches).
#[derive(Debug, Clone)]
pub struct BatchTerms {
    pub(super) policy: BatchPolicy,
    pub(super) flush: CancellationToken,
}

impl BatchTerms {
    /// At most so many messages at a time.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.policy.size
    }

    /// How long a batch waits for more.
    #[must_use]
    pub fn within(&self) -> Duration {
        self.policy.within
    }

    /// Waits until the subscription stops: from then on no batch waits for more.
    pub async fn flushed(&self) {
        self.flush.cancelled().await;
    }
}

/// Messages that middleware wants handled in one batch, these and no others: those of one
/// transaction, say.
///
/// Each message goes on with a [`Seat`] in its context. The batch begins when all of them have come
/// to the handler. If one does not get there, since it cannot be decoded, say, the batch is not
/// handled at all, and the others fail: middleware finds out by [`is_broken`](Self::is_broken), and
/// may assemble them anew.
#[derive(Clone)]
pub struct Assembly(Arc<Inner>);

struct Inner {
    size: usize,
    state: Mutex<State>,
    /// All of them have come, or have left.
    complete: Notify,
    number: OnceLock<u64>,
    shared: Extensions,
}

#[derive(Default)]
struct State {
    joined: usize,
    left: usize,
    broken: bool,
}

/// A message's place in an [`Assembly`]: middleware leaves it in the message's context, and takes it
/// away after the handling. Dropped before the message has come to the handler, it breaks the
/// assembly.
pub struct Seat {
    assembly: Assembly,
    place: usize,
    joined: AtomicBool,
}

impl Assembly {
    /// For so many messages, at least one, with a value for the arguments of the batch handler
    /// ([`BatchContext::value`](super::BatchContext::value)).
    #[must_use]
    pub fn new<T: Send + Sync + 'static>(messages: usize, value: T) -> Self {
        let mut shared = Extensions::default();
        shared.insert(value);
        Self(Arc::new(Inner {
            size: messages,
            state: Mutex::default(),
            complete: Notify::new(),
            number: OnceLock::new(),
            shared,
        }))
    }

    /// The seat of one of its messages; the batch has them by their places. Each must be given once.
    #[must_use]
    pub fn seat(&self, place: usize) -> Seat {
        Seat { assembly: self.clone(), place, joined: AtomicBool::new(false) }
    }

    /// Whether the batch is not handled, since one of its messages has left.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.state().broken
    }

    pub(super) fn break_up(&self) {
        self.state().broken = true;
    }

    /// The batch's number, the same for all of its messages.
    pub(super) fn number(&self, next: impl FnOnce() -> u64) -> u64 {
        *self.0.number.get_or_init(next)
    }

    pub(super) fn value<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.shared.value()
    }

    /// Waits until all messages have come, or have left.
    pub(super) async fn complete(&self) {
        self.0.complete.notified().await;
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        if state.joined + state.left == self.0.size {
            drop(state);
            self.0.complete.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whether the message has come to the handler.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) {
        if !self.joined.swap(true, Ordering::Relaxed) {
            self.assembly.change(|state| state.joined += 1);
        }
    }

    pub(super) fn assembly(&self) -> &Assembly {
        &self.assembly
    }

    pub(super) fn place(&self) -> usize {
        self.place
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.is_taken() {
            self.assembly.change(|state| {
                state.left += 1;
                state.broken = true;
            });
        }
    }
}

impl fmt::Debug for Assembly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Assembly({} messages)", self.0.size)
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seat({} of {:?})", self.place, self.assembly)
    }
}
