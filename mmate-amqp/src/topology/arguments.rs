//! The arguments of queues.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use mmate_core::message::wire;
use mmate_core::transport::{HashBy, Partition, QueuePlan};

/// A queue on one node: without arguments, as others declare theirs, unless it shall end by itself
/// or have priorities.
pub(super) fn classic(plan: &QueuePlan) -> FieldTable {
    let mut arguments = own(plan);
    if let Some(expires) = plan.expires {
        arguments.insert("x-expires".into(), milliseconds(expires));
    }
    arguments
}

/// The queue of one connection.
pub(super) fn own(plan: &QueuePlan) -> FieldTable {
    let mut arguments = FieldTable::default();
    if let Some(highest) = plan.max_priority {
        arguments.insert("x-max-priority".into(), AMQPValue::LongLongInt(highest.into()));
    }
    arguments
}

/// A replicated queue.
fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

/// A replicated queue of dead letters. Whoever looks at one and puts it back delivers it once more,
/// and RabbitMQ 4 drops what was delivered 20 times, unless the queue says otherwise. Before 4 it
/// knows no word for "never", so this is a number that nobody reaches.
pub(super) fn dead_letter_queue() -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(NEVER));
    arguments
}

const NEVER: i64 = 1_000_000_000;

/// A replicated queue that gives a message up after so many deliveries, to its dead-letter queue.
///
/// Dead-lettering is lossy by default; at-least-once wants a quorum queue that refuses what it has
/// no room for (RabbitMQ, "Quorum Queues", dead lettering).
pub(super) fn quorum_queue(name: &str, delivery_limit: u32) -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(delivery_limit.into()));
    arguments.insert("x-dead-letter-exchange".into(), text(wire::DEAD_LETTERS));
    arguments.insert("x-dead-letter-routing-key".into(), text(name));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments
}

/// A replicated queue from which messages go to `queue` when they have waited.
pub(super) fn quorum_delay(queue: &str, longest: Duration) -> FieldTable {
    let mut arguments = delay(queue, longest);
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments
}

/// A queue from which messages go to `queue`, through the default exchange, when they have waited.
pub(super) fn delay(queue: &str, longest: Duration) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), milliseconds(longest));
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(queue));
    arguments
}

/// What an exchange of the consistent-hash plugin hashes; the routing key by default.
pub(super) fn hash(partition: &Partition) -> FieldTable {
    let argument = match &partition.hash_by {
        HashBy::Header(name) => Some(("hash-header", name.as_str())),
        HashBy::CorrelationId => Some(("hash-property", "correlation_id")),
        _ => None,
    };
    let mut arguments = FieldTable::default();
    if let Some((name, value)) = argument {
        arguments.insert(name.into(), text(value));
    }
    arguments
}

/// A queue that gives messages to one of its consumers at a time.
pub(super) fn single_active_consumer(arguments: &mut FieldTable) {
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
}

/// A replicated queue from which messages go to an exchange when they have waited, with the routing
/// keys that they came with.
///
/// What reaches no queue there has to go: at-least-once keeps it for ever, and with 32 such messages
/// a queue gives no others out either. So a message can be lost at this step, if the queue that it
/// is routed to has no leader at that moment.
pub(super) fn quorum_delay_for_exchange(exchange: &str, longest: Duration) -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-message-ttl".into(), milliseconds(longest));
    arguments.insert("x-dead-letter-exchange".into(), text(exchange));
    arguments.insert("x-dead-letter-strategy".into(), text("at-most-once"));
    arguments
}

/// The broker takes no more than 2^32 - 1, about 49 days.
fn milliseconds(time: Duration) -> AMQPValue {
    let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    AMQPValue::LongLongInt(millis.max(1).into())
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
