//! Numbers about the connections, through the `metrics` facade.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

const CONNECTED: &str = "mmate_amqp_connected";
const RECONNECTS: &str = "mmate_amqp_reconnects_total";
const BLOCKED: &str = "mmate_amqp_blocked";
const PUBLISHING: &str = "mmate_amqp_publish_seconds";
const PUBLISH_FAILURES: &str = "mmate_amqp_publish_failures_total";
const PUBLISH_REPEATS: &str = "mmate_amqp_publish_repeats_total";
const RESUBSCRIPTIONS: &str = "mmate_amqp_resubscriptions_total";
const OVERSIZED: &str = "mmate_amqp_oversized_total";

pub(crate) fn describe() {
    describe_gauge!(CONNECTED, "Whether the connection (by role) is up: 1, or 0.");
    describe_counter!(RECONNECTS, "How often a connection (by role) was lost and came back.");
    describe_gauge!(
        BLOCKED,
        "Whether the broker blocks the connection (by role), for a memory or disk alarm: 1, or 0."
    );
    describe_histogram!(
        PUBLISHING,
        Unit::Seconds,
        "The time from a publish to the broker's confirmation, with repetitions after cuts."
    );
    describe_counter!(
        PUBLISH_FAILURES,
        "Publishes that were given up, by reason: unroutable, refused, ambiguous."
    );
    describe_counter!(
        PUBLISH_REPEATS,
        "Publishes that were sent again, with the same id, after a cut."
    );
    describe_counter!(
        RESUBSCRIPTIONS,
        "How often a consumer had to be brought back while its connection stood."
    );
    describe_counter!(
        OVERSIZED,
        "Messages (by queue) whose bodies were too large to be held, and that the broker \
         dead-lettered."
    );
}

pub(crate) fn connected(role: &'static str, is: bool) {
    gauge!(CONNECTED, "role" => role).set(if is { 1.0 } else { 0.0 });
}

pub(crate) fn reconnected(role: &'static str) {
    counter!(RECONNECTS, "role" => role).increment(1);
}

pub(crate) fn blocked(role: &'static str, is: bool) {
    gauge!(BLOCKED, "role" => role).set(if is { 1.0 } else { 0.0 });
}

pub(crate) fn published_within(time: Duration) {
    histogram!(PUBLISHING).record(time);
}

pub(crate) fn publish_failed(reason: &'static str) {
    counter!(PUBLISH_FAILURES, "reason" => reason).increment(1);
}

pub(crate) fn publish_repeated() {
    counter!(PUBLISH_REPEATS).increment(1);
}

pub(crate) fn resubscribed() {
    counter!(RESUBSCRIPTIONS).increment(1);
}

pub(crate) fn oversized(queue: &str) {
    counter!(OVERSIZED, "queue" => queue.to_owned()).increment(1);
}
