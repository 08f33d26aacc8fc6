//! What is told through the `metrics` facade.

use std::sync::Once;

use metrics::{counter, describe_counter, describe_gauge, gauge};

const HELD: &str = "mmate_resequencer_held";
const GAPS: &str = "mmate_resequencer_gaps_total";

/// So many messages wait for their predecessors.
pub(super) fn held(messages: usize) {
    describe();
    // Exact up to 2^53.
    gauge!(HELD).set(messages as f64);
}

/// A message went on without its predecessor.
pub(super) fn gap() {
    describe();
    counter!(GAPS).increment(1);
}

fn describe() {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(|| {
        describe_gauge!(HELD, "Messages that wait for their predecessors in a sequence.");
        describe_counter!(GAPS, "Messages that went on without their predecessors in a sequence.");
    });
}
