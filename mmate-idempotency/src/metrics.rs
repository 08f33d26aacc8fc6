//! What is told through the `metrics` facade, beside what the core counts of every message.

use std::sync::Once;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::protocol::Claim;

const CLAIMS: &str = "mmate_claims_total";
const LEASES_LOST: &str = "mmate_leases_lost_total";
const UNCERTAIN: &str = "mmate_uncertain_total";
const STORE_FAILURES: &str = "mmate_store_failures_total";
const EVICTED: &str = "mmate_records_evicted_total";
const PURGED: &str = "mmate_records_purged_total";
const PURGE_FAILURES: &str = "mmate_purge_failures_total";
const CALLS: &str = "mmate_store_call_seconds";
const STALE: &str = "mmate_stale_calls_total";
const HELD: &str = "mmate_claims_held";
const REPLIES_NOT_KEPT: &str = "mmate_replies_not_kept_total";
const RUNS: &str = "mmate_runs_total";

/// What a strategy counts on its store.
pub(crate) struct Meters {
    granted: Counter,
    taken_over: Counter,
    duplicate: Counter,
    busy: Counter,
    conflict: Counter,
    pub(crate) lease_lost: Counter,
    pub(crate) uncertain: Counter,
    pub(crate) store_failure: Counter,
    purged: Counter,
    purge_failure: Counter,
    /// Claims that are held now.
    pub(crate) held: Gauge,
    pub(crate) reply_not_kept: Counter,
}

impl Meters {
    /// For a store of that name.
    pub(crate) fn new(store: &'static str) -> Self {
        static DESCRIBED: Once = Once::new();
        DESCRIBED.call_once(describe);
        let claims = |verdict| counter!(CLAIMS, "store" => store, "verdict" => verdict);
        Self {
            granted: claims("granted"),
            taken_over: claims("taken-over"),
            duplicate: claims("duplicate"),
            busy: claims("busy"),
            conflict: claims("conflict"),
            lease_lost: counter!(LEASES_LOST, "store" => store),
            uncertain: counter!(UNCERTAIN, "store" => store),
            store_failure: counter!(STORE_FAILURES, "store" => store),
            purged: counter!(PURGED, "store" => store),
            purge_failure: counter!(PURGE_FAILURES, "store" => store),
            held: gauge!(HELD, "store" => store),
            reply_not_kept: counter!(REPLIES_NOT_KEPT, "store" => store),
        }
    }

    pub(crate) fn claimed(&self, claim: &Claim) {
        let counter = match claim {
            Claim::Granted(grant) if grant.taken_over => &self.taken_over,
            Claim::Granted(_) => &self.granted,
            Claim::Duplicate(_) => &self.duplicate,
            Claim::Busy { .. } => &self.busy,
            Claim::Conflict => &self.conflict,
        };
        counter.increment(1);
    }

    pub(crate) fn purged(&self, records: u64) {
        self.purged.increment(records);
    }

    pub(crate) fn purge_failed(&self) {
        self.purge_failure.increment(1);
    }
}

/// How long a store takes to answer.
pub(crate) fn store_call_seconds(store: &'static str, call: &'static str) -> Histogram {
    histogram!(CALLS, "store" => store, "call" => call)
}

/// Calls by somebody who held the claim no more.
pub(crate) fn stale_calls(store: &'static str, call: &'static str) -> Counter {
    counter!(STALE, "store" => store, "call" => call)
}

/// Counts a call of `Idempotent::run` by how it ended.
pub(crate) fn ran(store: &'static str, ended: &'static str) {
    counter!(RUNS, "store" => store, "ended" => ended).increment(1);
}

/// Counts Done records that a store forgot before their window was over.
pub(crate) fn evicted(store: &'static str, records: u64) {
    counter!(EVICTED, "store" => store).increment(records);
}

fn describe() {
    describe_counter!(
        CLAIMS,
        "Claims, by store and by verdict (granted, taken-over, duplicate, busy, conflict)."
    );
    describe_counter!(LEASES_LOST, "Handlers cancelled or refused, since their lease was over.");
    describe_counter!(
        UNCERTAIN,
        "Messages that were handled while it is not known whether that was recorded; they are shown \
         again."
    );
    describe_counter!(
        STORE_FAILURES,
        "Calls that a store did not answer, or answered with an error."
    );
    describe_histogram!(CALLS, Unit::Seconds, "Time that a store takes to answer, by call.");
    describe_counter!(
        STALE,
        "Calls (heartbeat, complete, release) refused since somebody else had taken over."
    );
    describe_gauge!(HELD, "Claims that are held now.");
    describe_counter!(EVICTED, "Done records forgotten before their window was over.");
    describe_counter!(PURGED, "Records removed after their time was over.");
    describe_counter!(PURGE_FAILURES, "Purges that failed; old records stay until one works.");
    describe_counter!(
        RUNS,
        "Calls of work that is done once per key, by how they ended (fresh, replayed, failed, busy, \
         conflict, cancelled, uncertain, no-value, store)."
    );
    describe_counter!(
        REPLIES_NOT_KEPT,
        "Answers and values that were too large to be kept in their record."
    );
}
