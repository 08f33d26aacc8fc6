//! What a broker allows.

use std::time::Duration;

/// What a broker allows, as far as its transport knows. A service whose settings cannot work
/// within it is refused at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Limits {
    /// How long a delivery may stay unsettled before the broker takes it back. RabbitMQ's
    /// `consumer_timeout`.
    pub delivery_timeout: Option<Duration>,
    /// How often the broker shows a message that is never settled before it gives it up.
    /// RabbitMQ's `x-delivery-limit`.
    pub delivery_limit: Option<u32>,
    /// The longest that a message can be delayed, for its next attempt or by its publisher.
    pub longest_delay: Option<Duration>,
}

impl Limits {
    /// A broker that takes a delivery back after this long.
    #[must_use]
    pub fn delivery_timeout(mut self, limit: Duration) -> Self {
        self.delivery_timeout = Some(limit);
        self
    }

    /// A broker that gives a message up after this many showings.
    #[must_use]
    pub fn delivery_limit(mut self, showings: u32) -> Self {
        self.delivery_limit = Some(showings);
        self
    }

    /// A broker that delays a message this long at most.
    #[must_use]
    pub fn longest_delay(mut self, limit: Duration) -> Self {
        self.longest_delay = Some(limit);
        self
    }
}
