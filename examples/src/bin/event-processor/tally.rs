//! What a listener counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::{counter, describe_counter, describe_gauge};

pub(crate) const EVENTS: &str = "event_processor_events_total";
pub(crate) const PUBLISHED: &str = "event_processor_published_total";
pub(crate) const LISTENERS: &str = "event_processor_listeners";
pub(crate) const MISSED: &str = "event_processor_missed_total";

/// Says what the metrics are, once they are collected.
pub(crate) fn describe() {
    describe_counter!(EVENTS, "Events that a listener is done with (stored, duplicate, conflict).");
    describe_counter!(PUBLISHED, "Events that the producer took.");
    describe_gauge!(LISTENERS, "Listeners that are connected to the producer.");
    describe_counter!(
        MISSED,
        "Events that a listener did not get: the journal had no room for them."
    );
}

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
        counter!(EVENTS, &labels).increment(1);
    }

    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Stored => self.stored.load(Relaxed),
            Outcome::Duplicate => self.duplicates.load(Relaxed),
            Outcome::Conflict => self.conflicts.load(Relaxed),
        }
    }
}
