//! Subscriptions of one service that a topic reaches twice.

use std::fmt;

use super::Service;
use crate::subscription::Subscription;
use crate::topic::Topic;

/// Two subscriptions of a service that some topic reaches both of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overlap {
    /// One subscription.
    pub first: String,
    /// The other one.
    pub second: String,
    /// A topic that reaches both.
    pub example: Topic,
    /// Whether they suppress each other's duplicates: both have an idempotency strategy, and the
    /// same scope. Otherwise each handles its own copy.
    pub one_effect: bool,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, second, example, .. } = self;
        write!(f, "the topic {example} reaches both {first:?} and {second:?}: ")?;
        f.write_str(if self.one_effect {
            "they share a scope, so one of them handles it"
        } else {
            "each handles its own copy"
        })
    }
}

pub(super) fn find(service: &Service) -> Vec<Overlap> {
    let all = &service.subscriptions;
    let pairs =
        all.iter().enumerate().flat_map(|(at, a)| all[at + 1..].iter().map(move |b| (a, b)));
    pairs
        .filter_map(|(first, second)| {
            let example = common_topic(first, second)?;
            Some(Overlap {
                first: first.parts.name.clone(),
                second: second.parts.name.clone(),
                example,
                one_effect: first.parts.idempotency.is_some()
                    && second.parts.idempotency.is_some()
                    && service.scope_of(first) == service.scope_of(second),
            })
        })
        .collect()
}

fn common_topic(first: &Subscription, second: &Subscription) -> Option<Topic> {
    let (a, b) = (&first.parts.bindings, &second.parts.bindings);
    a.iter()
        .flat_map(|a| b.iter().map(move |b| (a, b)))
        .filter(|(a, b)| a.exchange == b.exchange)
        .find_map(|(a, b)| a.pattern.overlap_example(&b.pattern))
}
