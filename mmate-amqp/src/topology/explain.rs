//! What RabbitMQ is asked for, in words.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use mmate_core::transport::{Declare, QueueKind, QueueMode, QueuePlan};
use mmate_core::{MadeQueue, QueueRole};

use super::arguments;

/// The queues of a plan with their arguments, as they are declared.
pub(crate) fn explain(plan: &QueuePlan, delivery_limit: u32) -> Vec<MadeQueue> {
    let none = FieldTable::default();
    let own = plan.mode == QueueMode::PerInstance;
    let (kind, queue) = match (plan.declare, plan.kind) {
        _ if own => ("classic, exclusive, auto-delete", arguments::own(plan)),
        (Declare::Create, QueueKind::Classic) => ("classic, durable", arguments::classic(plan)),
        (Declare::Create, _) => {
            ("quorum, durable", arguments::quorum_queue(&plan.name, delivery_limit))
        }
        _ => ("as it is", none),
    };
    let dead = if plan.declare.makes_things() {
        ("quorum, durable", arguments::dead_letter_queue())
    } else {
        ("as it is", FieldTable::default())
    };
    // Its longest time is its name's number.
    let longest = Duration::ZERO;
    let delay = match plan.declare.makes_things() {
        _ if own => ("classic, exclusive", arguments::delay(&plan.name, longest)),
        true => ("quorum, durable", arguments::quorum_delay(&plan.name, longest)),
        false => ("as it is", FieldTable::default()),
    };
    let delay_name = format!("{}.delay.{{milliseconds}}", plan.name);
    vec![
        made(plan.name.clone(), QueueRole::Work, (kind, queue)),
        made(plan.dead_letter_queue(), QueueRole::DeadLetters, dead),
        made(delay_name, QueueRole::Delay, delay),
    ]
}

fn made(name: String, role: QueueRole, (kind, arguments): (&str, FieldTable)) -> MadeQueue {
    let queue = MadeQueue::new(name, role, kind);
    arguments.inner().iter().fold(queue, |queue, (name, value)| {
        let value = match value {
            _ if name.as_str() == "x-message-ttl" => "{milliseconds}".to_owned(),
            AMQPValue::LongString(text) => format!("{:?}", text.to_string()),
            AMQPValue::LongLongInt(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        queue.argument(name.as_str(), value)
    })
}
