//! What a listener counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::counter;

/// What came of an event at one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This listener processed it.
    Stored,
    /// It was processed already, here or elsewhere.
    Duplicate,
    /// Its id was used before with another payload.
    Conflict,
}

/// Counts of events by what came of them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    stored: AtomicU64,
    duplicates: AtomicU64,
    conflicts: AtomicU64,
}

impl Tally {
    pub(crate) fn add(&self, listener: &str, outcome: Outcome) {
        let (count, word) = match outcome {
            Outcome::Stored => (&self.stored, "stored"),
            Outcome::Duplicate => (&self.duplicates, "duplicate"),
            Outcome::Conflict => (&self.conflicts, "conflict"),
        };
        count.fetch_add(1, Relaxed);
        let labels = [("listener", listener.to_owned()), ("outcome", word.to_owned())];
        counter!("event_processor_events_total", &labels).increment(1);
    }

    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Stored => self.stored.load(Relaxed),
            Outcome::Duplicate => self.duplicates.load(Relaxed),
            Outcome::Conflict => self.conflicts.load(Relaxed),
        }
    }
}
