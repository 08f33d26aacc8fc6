//! What in a service's configuration cannot work, alone or with its broker.

use std::collections::HashSet;
use std::time::Duration;

use super::{ConfigError, Service, ordering};
use crate::subscription::Subscription;
use crate::transport::{Limits, QueueKind, QueueMode};

/// What surrounds a middleware, for its [`check`](crate::Middleware::check).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Surroundings {
    /// How long one handling may take.
    pub handler_timeout: Option<Duration>,
    /// How many deliveries the broker hands over before the first is settled.
    pub prefetch: u16,
    /// How many messages are handled at the same time.
    pub concurrency: usize,
    /// Whether the handler takes batches: many messages are then inside of the middleware at once,
    /// and wait for each other.
    pub batches: bool,
    /// Whether messages of one key are handled one after another, in a lane.
    pub ordered: bool,
    /// How long a message that keeps failing is on its way at most: all its attempts, each for the
    /// handler's full timeout and with the longest delay after it.
    pub retry_schedule: Duration,
    /// What the broker allows.
    pub limits: Limits,
}

impl Surroundings {
    /// Says why a delivery may not be held for this long beside its handling, if it may not:
    /// `what` is a sentence's beginning, such as `it waits up to 60s for its turn`.
    ///
    /// # Errors
    /// A sentence with both values.
    pub fn may_hold(&self, what: &str, time: Duration) -> Result<(), String> {
        let (Some(timeout), Some(limit)) = (self.handler_timeout, self.limits.delivery_timeout)
        else {
            return Ok(());
        };
        if time.saturating_add(timeout) < limit {
            return Ok(());
        }
        Err(format!(
            "{what}, then a handler may run for {timeout:?}, and the broker takes a delivery back \
             after {limit:?}: shorten one of the two, or raise the broker's limit"
        ))
    }
}

/// Everything that is wrong with the configuration.
pub(super) fn problems(service: &mut Service, limits: Limits) -> Vec<ConfigError> {
    let mut problems = std::mem::take(&mut service.errors);
    if service.subscriptions.is_empty() {
        problems.push(ConfigError::NoSubscription { service: service.name.to_string() });
    }
    for subscription in &mut service.subscriptions {
        problems.append(&mut subscription.parts.errors);
    }
    let mut seen = HashSet::new();
    for subscription in &service.subscriptions {
        let parts = &subscription.parts;
        if !seen.insert(&parts.name) {
            problems.push(ConfigError::SameName { name: parts.name.clone() });
        }
        if parts.mode != QueueMode::Shared && parts.bindings.is_empty() {
            problems.push(ConfigError::NoTopic { subscription: parts.name.clone() });
        }
        if parts.max_priority.is_some()
            && parts.mode != QueueMode::PerInstance
            && parts.kind == QueueKind::Quorum
        {
            let subscription = parts.name.clone();
            problems.push(ConfigError::PriorityOfQuorumQueue { subscription });
        }
        if usize::from(parts.prefetch.get()) < parts.concurrency {
            problems.push(ConfigError::PrefetchBelowConcurrency {
                subscription: parts.name.clone(),
                prefetch: parts.prefetch.get(),
                concurrency: parts.concurrency,
            });
        }
        problems.extend(ordering::problem(parts, limits));
        problems.extend(missing(service, subscription));
        problems.extend(batch_problem(subscription));
        problems.extend(beyond_the_broker(subscription, limits));
    }
    problems
}

/// What the handler takes and nobody gives.
fn missing(service: &Service, subscription: &Subscription) -> Vec<ConfigError> {
    let parts = &subscription.parts;
    let provided: Vec<_> = parts.all_middleware().iter().flat_map(|m| m.provides()).collect();
    let is_there = |id: &std::any::TypeId| provided.contains(id) || service.state.contains(*id);
    let needs = subscription.handler.requirements().iter();
    needs
        .filter(|need| !is_there(&need.provided_by))
        .map(|need| ConfigError::Missing {
            subscription: parts.name.clone(),
            extractor: need.extractor.clone(),
            mend: need.mend.clone(),
        })
        .collect()
}

/// A batch that can never be full, or never has a message.
fn batch_problem(subscription: &Subscription) -> Option<ConfigError> {
    let Subscription { parts, handler } = subscription;
    let size = handler.batching()?.policy().size;
    let prefetch = parts.prefetch.get();
    let wrong = if size == 0 {
        "has batches of up to 0 messages; it must be 1 at least".to_owned()
    } else if size > usize::from(prefetch) {
        format!(
            "has batches of up to {size} messages and a prefetch of {prefetch}, so that none would \
             ever be full: raise the prefetch"
        )
    } else {
        return None;
    };
    Some(ConfigError::Batch { subscription: parts.name.clone(), wrong })
}

/// S23: what the broker would not let work.
fn beyond_the_broker(subscription: &Subscription, limits: Limits) -> Vec<ConfigError> {
    let parts = &subscription.parts;
    let surroundings = surroundings(subscription, limits);
    let mut problems = Vec::new();
    let subscription = || parts.name.clone();
    if let (Some(timeout), Some(limit)) = (parts.timeout, limits.delivery_timeout)
        && timeout >= limit
    {
        problems.push(ConfigError::TimeoutAboveBroker {
            subscription: subscription(),
            timeout,
            limit,
        });
    }
    if let Some(limit) = limits.longest_delay
        && parts.retry.longest() > limit
    {
        let delay = parts.retry.longest();
        problems.push(ConfigError::DelayAboveBroker { subscription: subscription(), delay, limit });
    }
    for middleware in parts.all_middleware() {
        if let Err(wrong) = middleware.check(&surroundings) {
            problems.push(ConfigError::Middleware { subscription: subscription(), wrong });
        }
    }
    problems
}

fn surroundings(subscription: &Subscription, limits: Limits) -> Surroundings {
    let Subscription { parts, handler } = subscription;
    let working = parts.timeout.unwrap_or_default().saturating_mul(parts.retry.attempts());
    Surroundings {
        handler_timeout: parts.timeout,
        prefetch: parts.prefetch.get(),
        concurrency: parts.concurrency,
        batches: handler.batching().is_some(),
        ordered: parts.order.is_some(),
        retry_schedule: parts.retry.schedule().saturating_add(working),
        limits,
    }
}

/// A rolling restart may give a message back once for each instance.
const FEW_SHOWINGS: u32 = 3;

/// Says in the log what works only while handlers are faster than they may be.
pub(super) fn warn(service: &Service, limits: Limits) {
    if let Some(showings) = limits.delivery_limit
        && showings < FEW_SHOWINGS
    {
        tracing::warn!(
            delivery_limit = showings,
            "a message that was fetched and given back {showings} times without being handled, as \
             when a service stops, is dead-lettered at the next time: raise the delivery limit"
        );
    }
    for subscription in &service.subscriptions {
        let surroundings = surroundings(subscription, limits);
        for middleware in subscription.parts.all_middleware() {
            for warning in middleware.warnings(&surroundings) {
                tracing::warn!(subscription = subscription.parts.name, "{warning}");
            }
        }
    }
    let Some(limit) = limits.delivery_timeout else { return };
    for subscription in &service.subscriptions {
        let parts = &subscription.parts;
        let Some(timeout) = parts.timeout else { continue };
        let prefetch = parts.prefetch.get();
        let turns = usize::from(prefetch).div_ceil(parts.concurrency.max(1));
        let longest = timeout.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX));
        if longest >= limit {
            tracing::warn!(
                subscription = parts.name,
                prefetch,
                concurrency = parts.concurrency,
                ?timeout,
                consumer_timeout = ?limit,
                "handlers that take their full timeout would keep the last of the fetched messages \
                 waiting for {longest:?}, and the broker takes a delivery back after {limit:?}: \
                 lower the prefetch or the timeout, or raise the concurrency"
            );
        }
    }
}
