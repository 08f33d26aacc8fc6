//! The queues that replies may go to.

use std::sync::Arc;

use glob::Pattern;

use crate::message::{MAX_ID_BYTES, wire};

/// The queues that replies may go to. Who sends a request names the queue; without a check any
/// stranger could have us write into any queue of the broker.
#[derive(Debug, Clone)]
pub(crate) struct ReplyPolicy {
    allowed: Vec<Pattern>,
    /// The service's own queues, which are never allowed.
    own: Arc<[String]>,
}

/// Ours, that of mmate for Go, and RabbitMQ's direct reply-to, which reaches a waiting client only.
const DEFAULTS: [&str; 3] = ["*.replies.*", "bridge.reply.*", "amq.rabbitmq.reply-to.*"];

/// A reply address that replies must not go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the reply address {address:?} is not allowed: {wrong}; allow it with .allow_replies_to([…]) if \
     it is meant"
)]
#[non_exhaustive]
pub struct RefusedReplyAddress {
    /// The address.
    pub address: String,
    /// What is wrong with it.
    pub wrong: &'static str,
}

impl ReplyPolicy {
    pub(crate) fn new(more: &[Pattern], own: Arc<[String]>) -> Self {
        let defaults = DEFAULTS.iter().map(|pattern| {
            Pattern::new(pattern).expect("the default patterns of reply addresses are globs")
        });
        Self { allowed: defaults.chain(more.iter().cloned()).collect(), own }
    }

    /// Whether the reply to a message from `queue` may go there.
    pub(crate) fn check(&self, address: &str, queue: &str) -> Result<(), RefusedReplyAddress> {
        let is_of = |own: &str| {
            address.strip_prefix(own).is_some_and(|rest| rest.is_empty() || is_delay(rest))
        };
        let wrong = if address.len() > MAX_ID_BYTES {
            "it is longer than a queue's name can be"
        } else if address.chars().any(char::is_control) {
            "it has a control character"
        } else if address.starts_with("amq.") && !is_direct(address) {
            "it begins with amq., which the broker keeps for itself"
        } else if address.starts_with(&wire::dead_letter_queue("")) {
            "it is a dead-letter queue"
        } else if is_of(queue) || self.own.iter().any(|own| is_of(own)) {
            "it is a queue of this service"
        } else if !self.allowed.iter().any(|pattern| pattern.matches(address)) {
            "no pattern of reply queues matches it"
        } else {
            return Ok(());
        };
        Err(RefusedReplyAddress { address: address.to_owned(), wrong })
    }
}

fn is_delay(rest: &str) -> bool {
    rest.starts_with(".delay.")
}

/// Whether it stands for a client that consumes `amq.rabbitmq.reply-to`, and so for no queue.
pub(crate) fn is_direct(address: &str) -> bool {
    address.starts_with("amq.rabbitmq.reply-to.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(address: &str) -> Option<&'static str> {
        let more = [Pattern::new("answers.*").unwrap(), Pattern::new("*").unwrap()];
        let policy = ReplyPolicy::new(&more, ["shop.orders".to_owned()].into());
        policy.check(address, "shared").err().map(|refused| refused.wrong)
    }

    #[test]
    fn the_conventions_and_what_the_user_adds_are_allowed() {
        let policy = ReplyPolicy::new(&[], Arc::from([]));
        for address in
            ["shop.replies.1", "bridge.reply.x", "amq.rabbitmq.reply-to.g1h2", "a.b.replies.c"]
        {
            assert_eq!(policy.check(address, "q"), Ok(()), "{address}");
        }
        assert!(policy.check("answers.1", "q").is_err());
        assert!(policy.check("rq", "q").is_err());
        assert_eq!(wrong("answers.1"), None);
    }

    /// Even where the user allows everything.
    #[test]
    fn queues_of_the_broker_of_dead_letters_and_of_the_service_are_never_allowed() {
        for address in [
            "amq.gen-4W",
            "amq.rabbitmq.log",
            "dlq.orders",
            "dlq.shop.replies.1",
            "shop.orders",
            "shared",
            "shared.delay.100",
            "shop.orders.delay.5000",
            "a\nb",
            &"x".repeat(256),
        ] {
            assert!(wrong(address).is_some(), "{address:?}");
        }
    }
}
