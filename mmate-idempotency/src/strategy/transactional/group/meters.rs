//! What is counted of groups.

use std::sync::Once;

use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};

const GROUPS: &str = "mmate_groups_total";
const SIZE: &str = "mmate_group_messages";

/// What a strategy counts of its groups.
pub(super) struct GroupMeters {
    pub(super) committed: Counter,
    pub(super) rolled_back: Counter,
    pub(super) uncertain: Counter,
    /// Messages in a group whose commit was asked for.
    pub(super) size: Histogram,
}

impl GroupMeters {
    /// For a store of that name.
    pub(super) fn new(store: &'static str) -> Self {
        static DESCRIBED: Once = Once::new();
        DESCRIBED.call_once(describe);
        let groups = |result| counter!(GROUPS, "store" => store, "result" => result);
        Self {
            committed: groups("committed"),
            rolled_back: groups("rolled-back"),
            uncertain: groups("uncertain"),
            size: histogram!(SIZE, "store" => store),
        }
    }
}

fn describe() {
    describe_counter!(
        GROUPS,
        "Groups of messages in one transaction, by store and by result (committed, rolled-back, \
         uncertain)."
    );
    describe_histogram!(SIZE, "How many messages a committed transaction was for.");
}
