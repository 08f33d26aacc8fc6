//! Start-up checks of what keeps the order of messages.

use std::time::Duration;

use super::ConfigError;
use super::lanes::LONGEST_WAIT;
use crate::subscription::{OrderKey, SubscriptionBuilder};
use crate::transport::{Declare, Limits, QueueMode};

pub(super) fn problem(parts: &SubscriptionBuilder, limits: Limits) -> Option<ConfigError> {
    let wrong = wrong_with(parts, limits)?;
    Some(ConfigError::Ordering { subscription: parts.name.clone(), wrong })
}

/// What the reader of the log should know of the order that a subscription keeps.
pub(super) fn remark(parts: &SubscriptionBuilder) -> Option<&'static str> {
    let alone = parts.single_active_consumer
        || parts.partitions.is_some()
        || parts.mode == QueueMode::PerInstance;
    (parts.order.is_some() && !alone).then_some(
        "the order holds within this process only: other instances are given messages of the same \
         keys, unless the queue has a single active consumer or partitions",
    )
}

fn wrong_with(parts: &SubscriptionBuilder, limits: Limits) -> Option<String> {
    if parts.single_active_consumer && parts.mode == QueueMode::PerInstance {
        let wrong = "is per instance, so its queue has one consumer anyway: leave out \
                     .single_active_consumer()";
        return Some(wrong.to_owned());
    }
    if let Some(wrong) = parts.partitions.and_then(|count| wrong_with_partitions(parts, count)) {
        return Some(wrong);
    }
    let key = parts.order.as_ref()?;
    if let Some(problem) = key.problem() {
        return Some(format!("is ordered by a key that cannot be one: {problem}"));
    }
    // The wait and then the handling, both on one delivery.
    let handling = parts.timeout.unwrap_or_default();
    let left = limits.delivery_timeout.map(|limit| limit.saturating_sub(handling));
    let safe = left.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT);
    let longest: Duration = parts.retry.longest();
    (longest > safe).then(|| {
        format!(
            "is ordered, and its retry policy waits up to {longest:?} between two attempts; a \
             message of an ordered subscription waits in the process and keeps its delivery, which \
             is safe for {safe:?} (RabbitMQ takes a delivery back after its consumer_timeout, 30 \
             minutes): lower the policy's longest delay"
        )
    })
}

fn wrong_with_partitions(parts: &SubscriptionBuilder, count: u16) -> Option<String> {
    if count == 0 {
        return Some("has 0 partitions; there must be 1 at least".to_owned());
    }
    if parts.mode == QueueMode::PerInstance {
        return Some("is per instance, so there is nobody to share partitions with".to_owned());
    }
    if parts.declare.is_some_and(|declare| declare != Declare::Create) {
        let wrong = "has partitions, which are made here: use no other way to declare it";
        return Some(wrong.to_owned());
    }
    if parts.bindings.is_empty() {
        let wrong = "has partitions and no topic pattern; messages reach partitions by topic only, \
                     so add one with .topics([…])";
        return Some(wrong.to_owned());
    }
    match parts.order.as_ref().map(OrderKey::hash_by) {
        None => {
            let wrong = "has partitions and no key to choose one by: add .ordered_by(…)";
            Some(wrong.to_owned())
        }
        Some(Err(key)) => Some(format!(
            "has partitions and is ordered by {key}, which a broker cannot hash: order by a header, \
             the correlation id or the whole topic, and have the publisher put the key there"
        )),
        Some(Ok(_)) => None,
    }
}
