//! Counts what was handled, and what that took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use crate::Result;
use crate::figures::{Sample, Used};

/// Counts handled messages. The clock runs from the first to the last, so that connecting is not
/// part of a figure.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    expected: u64,
    handled: AtomicU64,
    begin: OnceLock<Used>,
    end: OnceLock<Used>,
    ended: Notify,
}

impl Progress {
    pub(crate) fn new(expected: u64) -> Self {
        Self(Arc::new(Inner {
            expected,
            handled: AtomicU64::new(0),
            begin: OnceLock::new(),
            end: OnceLock::new(),
            ended: Notify::new(),
        }))
    }

    /// One more was handled.
    pub(crate) fn one(&self) {
        self.more(1);
    }

    /// So many more were handled.
    pub(crate) fn more(&self, messages: u64) {
        let inner = &*self.0;
        let before = inner.handled.fetch_add(messages, Ordering::Relaxed);
        if before == 0 {
            inner.begin.get_or_init(Used::now);
        }
        if before < inner.expected && before + messages >= inner.expected {
            inner.end.get_or_init(Used::now);
            inner.ended.notify_one();
        }
    }

    /// Whether all were handled.
    pub(crate) fn is_complete(&self) -> bool {
        self.0.handled.load(Ordering::Relaxed) >= self.0.expected
    }

    /// Waits for the last one, and tells what they took.
    pub(crate) async fn finished(&self) -> Result<Sample> {
        let inner = &*self.0;
        if tokio::time::timeout(LIMIT, inner.ended.notified()).await.is_err() {
            let handled = inner.handled.load(Ordering::Relaxed);
            let expected = inner.expected;
            return Err(format!("{handled} of {expected} messages within {LIMIT:?}").into());
        }
        match (inner.begin.get(), inner.end.get()) {
            (Some(begin), Some(end)) => Ok(end.since(*begin, inner.expected - 1)),
            _ => Err("the first message was not seen".into()),
        }
    }
}

/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(300);
