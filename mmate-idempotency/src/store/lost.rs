//! Tells that a claim is lost.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Tells whoever asks that a claim is lost.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    is: AtomicBool,
    became: Notify,
}

impl Lost {
    pub(crate) fn is(&self) -> bool {
        self.is.load(Ordering::Acquire)
    }

    /// Ready once it is lost.
    pub(crate) async fn happens(&self) {
        let mut became = pin!(self.became.notified());
        // Whoever is on the list before it looks misses nothing.
        became.as_mut().enable();
        if !self.is() {
            became.await;
        }
    }

    pub(crate) fn set(&self) {
        self.is.store(true, Ordering::Release);
        self.became.notify_waiters();
    }
}
