//! What an outbox tells through the `metrics` facade.

use std::sync::{Arc, Once};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

const PENDING: &str = "mmate_outbox_pending";
const DEAD: &str = "mmate_outbox_dead";
const WRITTEN: &str = "mmate_outbox_written_total";
const SENT: &str = "mmate_outbox_sent_total";
const FAILED: &str = "mmate_outbox_failed_total";
const GIVEN_UP: &str = "mmate_outbox_given_up_total";
const LATENCY: &str = "mmate_outbox_latency_seconds";

/// Why an attempt at sending failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Invalid,
    Unroutable,
    Refused,
    Unknown,
}

/// What an outbox counts.
pub(super) struct Meters {
    pub(super) written: Counter,
    pending: Gauge,
    dead: Gauge,
    sent: Counter,
    invalid: Counter,
    unroutable: Counter,
    refused: Counter,
    unknown: Counter,
    pub(super) given_up: Counter,
    latency: Histogram,
}

impl Meters {
    /// For a table of that name: one of the few that a program has.
    pub(super) fn new(table: &Arc<str>) -> Self {
        static DESCRIBED: Once = Once::new();
        DESCRIBED.call_once(describe);
        let table = || table.to_string();
        let failed = |reason| counter!(FAILED, "outbox" => table(), "reason" => reason);
        Self {
            written: counter!(WRITTEN, "outbox" => table()),
            pending: gauge!(PENDING, "outbox" => table()),
            dead: gauge!(DEAD, "outbox" => table()),
            sent: counter!(SENT, "outbox" => table()),
            invalid: failed("invalid"),
            unroutable: failed("unroutable"),
            refused: failed("refused"),
            unknown: failed("unknown"),
            given_up: counter!(GIVEN_UP, "outbox" => table()),
            latency: histogram!(LATENCY, "outbox" => table()),
        }
    }

    /// A message that was confirmed so long after it was written.
    pub(super) fn sent(&self, latency: Duration) {
        self.sent.increment(1);
        self.latency.record(latency.as_secs_f64());
    }

    pub(super) fn failed(&self, why: Why) {
        let counter = match why {
            Why::Invalid => &self.invalid,
            Why::Unroutable => &self.unroutable,
            Why::Refused => &self.refused,
            Why::Unknown => &self.unknown,
        };
        counter.increment(1);
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is no ledger")]
    pub(super) fn waiting(&self, pending: i64, dead: i64) {
        self.pending.set(pending as f64);
        self.dead.set(dead as f64);
    }
}

fn describe() {
    describe_gauge!(PENDING, "Messages in the outbox that are to be sent.");
    describe_gauge!(DEAD, "Messages in the outbox that were given up.");
    describe_counter!(WRITTEN, "Messages written into the outbox, committed or not.");
    describe_counter!(SENT, "Messages of the outbox that the broker confirmed.");
    describe_counter!(
        FAILED,
        "Attempts at sending that failed, by reason (invalid, unroutable, refused, unknown)."
    );
    describe_counter!(GIVEN_UP, "Messages of the outbox that were given up.");
    describe_histogram!(
        LATENCY,
        metrics::Unit::Seconds,
        "From writing a message in its transaction to the broker's confirmation."
    );
}
