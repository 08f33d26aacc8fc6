//! Deliveries, and how they are settled.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::browse::Changes;
use crate::message::Message;
use crate::outcome::DeadLetter;

/// One showing of a message to a consumer. It is settled once: settling consumes it. One that is
/// dropped unsettled stays with the broker, which shows it again when the connection ends.
#[must_use = "a delivery that is not settled blocks its place in the prefetch"]
#[non_exhaustive]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// The queue it was taken from.
    pub queue: String,
    /// The exchange it was published to; empty if it was sent to the queue by name.
    pub exchange: String,
    /// The routing key it was published with, also after a delay.
    pub routing_key: String,
    /// How many attempts at handling it have failed before, as the message itself says: attempts
    /// survive the process that made them.
    pub failed_attempts: u32,
    /// How often it was deferred.
    pub deferrals: u32,
    /// Whether the broker says that it showed this one before. No ground for skipping anything: a
    /// publisher's own duplicate is shown for the first time too.
    pub redelivered: bool,
    /// What the broker noted when it dead-lettered the message by itself, newest first. Only a
    /// [`Browser`](super::Browser) reads it.
    pub deaths: Vec<Death>,
    settle: Box<dyn Settle>,
}

/// What a broker notes when it dead-letters a message by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Death {
    /// Why, in the broker's word, such as `delivery_limit` or `expired`.
    pub reason: String,
    /// The queue it was taken from.
    pub queue: String,
    /// The exchange it had come to that queue by; empty if it was sent there by name.
    pub exchange: String,
    /// The routing key it had come with.
    pub routing_key: String,
    /// When it happened first for this queue and reason, to the second.
    pub at: Option<SystemTime>,
}

impl Delivery {
    /// A delivery that came from a queue. The other fields can be set afterwards.
    pub fn new(message: Message, queue: impl Into<String>, settle: Box<dyn Settle>) -> Self {
        Self {
            message,
            queue: queue.into(),
            exchange: String::new(),
            routing_key: String::new(),
            failed_attempts: 0,
            deferrals: 0,
            redelivered: false,
            deaths: Vec::new(),
            settle,
        }
    }

    /// Whether it can no longer be settled: the connection that it came through is gone, and the
    /// broker shows the message again.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.settle.is_lost()
    }

    /// Settles the delivery.
    pub async fn settle(self, settlement: Settlement) -> Settled {
        self.settle.settle(settlement).await
    }

    /// Wraps the right to settle it, for a transport around another one.
    pub fn map_settle(self, wrap: impl FnOnce(Box<dyn Settle>) -> Box<dyn Settle>) -> Self {
        Self { settle: wrap(self.settle), ..self }
    }

    /// Parts the message from the right to settle it.
    #[must_use]
    pub fn into_settle(self) -> Box<dyn Settle> {
        self.settle
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("queue", &self.queue)
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("failed_attempts", &self.failed_attempts)
            .field("redelivered", &self.redelivered)
            .finish_non_exhaustive()
    }
}

/// The right to settle one delivery.
#[async_trait]
pub trait Settle: Send + 'static {
    /// Settles it, and says whether the broker will know.
    async fn settle(self: Box<Self>, settlement: Settlement) -> Settled;

    /// Whether it is known that a settlement would be lost, since the connection that the delivery
    /// came through is gone. A transport that cannot know says no, and each redelivery is then
    /// handled anew, and a lane of an ordered subscription may try the lost one too.
    fn is_lost(&self) -> bool {
        false
    }
}

/// How a delivery is settled.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Settlement {
    /// It is finished and leaves the queue.
    Ack,
    /// It goes back to its queue at once, and counts as nothing. For a drain, not for a retry.
    Requeue,
    /// It is shown again after the delay, with one more failed attempt.
    Retry {
        /// The delay.
        after: Duration,
        /// The error, for the headers.
        error: String,
    },
    /// It is shown again after the delay, with the attempts it had.
    Defer {
        /// The delay.
        after: Duration,
    },
    /// It goes to the dead-letter queue; only when it is safe there it leaves its own.
    DeadLetter {
        /// Why.
        letter: DeadLetter,
        /// How many attempts were made.
        attempts: u32,
    },
    /// A copy goes to a queue by the queue's name; only when it is safe there the original leaves
    /// its own. What the broker wrote into the original is not copied.
    Move {
        /// The queue.
        to: String,
        /// What is other in the copy.
        changes: Box<Changes>,
    },
}

/// Whether a settlement reached the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a lost settlement means that the message will be shown again"]
#[expect(clippy::exhaustive_enums, reason = "it did or it did not")]
pub enum Settled {
    /// It was handed over, on the connection that the delivery came from.
    Yes,
    /// It was not: the broker still has the message and will show it again.
    Lost {
        /// Why.
        reason: String,
    },
}

impl Settled {
    /// A lost settlement.
    pub fn lost(reason: impl Into<String>) -> Self {
        Self::Lost { reason: reason.into() }
    }

    /// Whether it was lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }
}
