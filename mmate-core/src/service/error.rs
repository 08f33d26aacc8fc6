//! Why a service does not run.

use std::time::Duration;

use crate::outcome::BoxError;
use crate::subscription::{InvalidName, InvalidTypeFilter};
use crate::topic::InvalidTopicPattern;
use crate::transport::TransportError;

/// Why a service did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The configuration cannot work. All that is wrong with it is told at once.
    #[error("the service is not configured correctly: {}", list(.0))]
    Config(Vec<ConfigError>),
    /// The broker refused something.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A middleware, such as an idempotency strategy, could not start.
    #[error("failed to start the middleware of the subscription {subscription:?}: {source}")]
    Middleware {
        /// The subscription.
        subscription: String,
        /// Why.
        source: BoxError,
    },
}

fn list(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Something in a service's configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A topic pattern is none.
    #[error(transparent)]
    Pattern(#[from] InvalidTopicPattern),
    /// A name cannot be one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A header cannot be passed on.
    #[error(
        "the header {name:?} cannot be passed on: a name has 1 to 255 bytes, and those of the wire \
         format have a meaning of their own"
    )]
    Header {
        /// Its name.
        name: String,
    },
    /// A message-type filter is no glob.
    #[error(transparent)]
    TypeFilter(#[from] InvalidTypeFilter),
    /// A pattern for reply queues is no glob.
    #[error("the pattern {pattern:?} for reply queues is no glob: {wrong}")]
    ReplyQueue {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// The service has nothing to do.
    #[error("the service {service:?} has no subscription; add one with .subscribe(…)")]
    NoSubscription {
        /// The service.
        service: String,
    },
    /// Nothing is routed to a subscription.
    #[error("the subscription {subscription:?} has no topic pattern; add one with .topics([…])")]
    NoTopic {
        /// The subscription.
        subscription: String,
    },
    /// Two subscriptions have the same name, and so the same queue.
    #[error("two subscriptions are named {name:?}; give one of them another name")]
    SameName {
        /// The name.
        name: String,
    },
    /// A subscription may handle no message at a time.
    #[error("the subscription {subscription:?} has a concurrency of 0; it must be 1 at least")]
    ZeroConcurrency {
        /// The subscription.
        subscription: String,
    },
    /// More handlers than deliveries.
    #[error(
        "the subscription {subscription:?} has a prefetch of {prefetch} and a concurrency of \
         {concurrency}; the handlers above the prefetch would never have work: raise the prefetch"
    )]
    PrefetchBelowConcurrency {
        /// The subscription.
        subscription: String,
        /// Its prefetch.
        prefetch: u16,
        /// Its concurrency.
        concurrency: usize,
    },
    /// A handler may run for longer than the broker waits.
    #[error(
        "a handler of the subscription {subscription:?} may run for {timeout:?}, and the broker \
         takes a delivery back after {limit:?} (RabbitMQ's consumer_timeout): lower it with \
         .timeout(…), or raise the broker's limit and tell the transport of it"
    )]
    TimeoutAboveBroker {
        /// The subscription.
        subscription: String,
        /// Its handler timeout.
        timeout: Duration,
        /// The broker's limit.
        limit: Duration,
    },
    /// A quorum queue has no priorities.
    #[error(
        "the subscription {subscription:?} asks for priorities, which a quorum queue does not have: \
         add .queue_kind(QueueKind::Classic), or take the urgent messages from a queue of their own"
    )]
    PriorityOfQuorumQueue {
        /// The subscription.
        subscription: String,
    },
    /// A message would wait longer for its next attempt than the broker can delay it.
    #[error(
        "the retry policy of the subscription {subscription:?} waits up to {delay:?}, and the \
         broker delays a message for {limit:?} at most: shorten the policy's longest delay"
    )]
    DelayAboveBroker {
        /// The subscription.
        subscription: String,
        /// The policy's longest delay.
        delay: Duration,
        /// The broker's longest.
        limit: Duration,
    },
    /// A middleware, such as an idempotency strategy, cannot work with the other settings.
    #[error("the subscription {subscription:?} cannot work with its middleware: {wrong}")]
    Middleware {
        /// The subscription.
        subscription: String,
        /// Why, with the values and the mend.
        wrong: String,
    },
    /// What keeps the order of messages cannot work as it is set.
    #[error("the subscription {subscription:?} {wrong}")]
    Ordering {
        /// The subscription.
        subscription: String,
        /// What is wrong, and what to do.
        wrong: String,
    },
    /// Batches cannot work as they are set.
    #[error("the subscription {subscription:?} {wrong}")]
    Batch {
        /// The subscription.
        subscription: String,
        /// What is wrong, and what to do.
        wrong: String,
    },
    /// A handler takes something that nobody gives.
    #[error("the handler of the subscription {subscription:?} takes {extractor}: {mend}")]
    Missing {
        /// The subscription.
        subscription: String,
        /// The argument.
        extractor: String,
        /// What to do.
        mend: String,
    },
}
