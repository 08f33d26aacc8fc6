//! What a broker must offer.
//!
//! A [`Transport`] makes a [`Connection`] for a service; the connection declares queues, publishes
//! and opens a [`Consumer`] for each subscription. A [`Delivery`] is settled once, since settling
//! consumes it. Everything above this module is the same on every broker, and the cases in
//! `conformance`, a feature of this crate, show that a transport keeps the contract.

mod browse;
mod delivery;
mod error;
mod limits;
mod queue;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use browse::{Browser, Changes};
pub use delivery::{Death, Delivery, Settle, Settled, Settlement};
pub use error::{PublishError, TransportError, TransportErrorKind};
pub use limits::Limits;
pub use queue::{Binding, Declare, HashBy, Partition, QueueKind, QueueMode, QueuePlan};

use crate::health::{Status, StatusCell};
use crate::message::{InvalidMessage, Message};
use crate::plan::MadeQueue;
use crate::topic::Topic;

/// A broker, not yet connected to.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Connects for a service. While the broker cannot be reached this goes on trying, and says so
    /// in the log; dropping the future stops it.
    ///
    /// # Errors
    /// What no waiting mends: wrong credentials, a missing virtual host, an unusable address.
    async fn connect(&self, service: &str) -> Result<Box<dyn Connection>, TransportError>;

    /// The broker's address for logs, without credentials.
    fn describe(&self) -> String;

    /// What the broker allows; nothing is known by default.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// What the broker is asked for when a queue is declared: the queue, its dead-letter queue and
    /// its delay queues, in the broker's own words. Nothing is connected to. Nothing by default.
    fn explain(&self, queue: &QueuePlan) -> Vec<MadeQueue> {
        let _ = queue;
        Vec::new()
    }
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    async fn connect(&self, service: &str) -> Result<Box<dyn Connection>, TransportError> {
        (**self).connect(service).await
    }

    fn describe(&self) -> String {
        (**self).describe()
    }

    fn limits(&self) -> Limits {
        (**self).limits()
    }

    fn explain(&self, queue: &QueuePlan) -> Vec<MadeQueue> {
        (**self).explain(queue)
    }
}

/// A connection to a broker that restores itself: queues, bindings and consumers come back after a
/// cut by its own doing.
#[async_trait]
pub trait Connection: Send + Sync + 'static {
    /// Makes a queue, its bindings and its dead-letter queue as planned, or checks them.
    ///
    /// # Errors
    /// When the queue is there with other arguments, is missing, or may not be touched.
    async fn declare(&self, queue: &QueuePlan) -> Result<(), TransportError>;

    /// Starts to consume a declared queue; returns when the broker has agreed. At most `prefetch`
    /// deliveries are held unsettled at any time.
    ///
    /// # Errors
    /// When the queue is missing or may not be consumed.
    async fn consume(
        &self,
        queue: &QueuePlan,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, TransportError>;

    /// Publishes, and returns when the broker has taken responsibility.
    ///
    /// # Errors
    /// [`PublishError`]; an ambiguous one may have been stored, and is repeated with the same id.
    async fn publish(&self, publication: Publication) -> Result<(), PublishError>;

    /// Opens a queue to be looked through, such as one of dead letters. At most `page` messages
    /// are fetched ahead of [`next`](Browser::next).
    ///
    /// # Errors
    /// When the queue is missing or may not be read.
    async fn browse(&self, queue: &str, page: u16) -> Result<Box<dyn Browser>, TransportError>;

    /// Closes the connection. What is unsettled goes back to its queue.
    async fn close(&self);

    /// The broker's kind, for traces: `rabbitmq`, by OpenTelemetry's conventions.
    fn system(&self) -> &'static str {
        "other"
    }

    /// How the connections that this one consists of are, each with its name.
    fn status(&self) -> Vec<(String, Status)> {
        Vec::new()
    }
}

/// A consumer of one queue.
#[async_trait]
pub trait Consumer: Send + 'static {
    /// The next delivery. `None` when the consumer was stopped and nothing is left, or the
    /// connection was closed.
    ///
    /// Dropping the future loses nothing: the delivery comes with the next call.
    ///
    /// # Errors
    /// When the consumer ended and cannot be brought back.
    async fn next(&mut self) -> Option<Result<Delivery, TransportError>>;

    /// The next delivery if it is here already: what [`next`](Self::next) would return without
    /// waiting. A transport that does not know has none.
    fn try_next(&mut self) -> Option<Delivery> {
        None
    }

    /// Stops fetching. What was fetched and not yet returned by [`next`](Self::next) goes back to
    /// the queue; deliveries that are out can still be settled.
    async fn stop(&mut self);

    /// Where it says how it is; always up, for a transport that cannot say.
    fn status(&self) -> StatusCell {
        StatusCell::default()
    }

    /// Stops fetching, and gives back in one step everything that is unsettled: what was fetched
    /// and not returned, and the deliveries that are out, which are lost with this. The queue then
    /// has it all at its old place, before any other consumer is served from behind it.
    ///
    /// An ordered subscription ends so; [`stop`](Self::stop) would let a neighbour have later
    /// messages before the earlier ones are back. That is what this does unless a transport does
    /// better.
    async fn leave(&mut self) {
        self.stop().await;
    }
}

/// A message and where it goes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Publication {
    /// Where it goes.
    pub destination: Destination,
    /// What goes there.
    pub message: Message,
    /// Whether it is an error if no queue takes it.
    pub mandatory: bool,
    /// How long the broker keeps it before it delivers it. Whether a queue takes what goes to an
    /// exchange is then known to nobody.
    pub delay: Option<Duration>,
}

impl Publication {
    /// A message that must reach a queue.
    #[must_use]
    pub fn new(destination: Destination, message: Message) -> Self {
        Self { destination, message, mandatory: true, delay: None }
    }

    /// Delivers it so much later.
    #[must_use]
    pub fn delay(mut self, time: Duration) -> Self {
        self.delay = Some(time);
        self
    }

    /// For a transport: checks that it can be delayed as it says, on a broker that delays for so
    /// long at most.
    ///
    /// # Errors
    /// [`InvalidMessage::Delay`] and [`InvalidMessage::DelayedAndExpiring`].
    pub fn check_delay(&self, longest: Option<Duration>) -> Result<(), InvalidMessage> {
        let Some(delay) = self.delay else { return Ok(()) };
        if let Some(limit) = longest.filter(|limit| delay > *limit) {
            return Err(InvalidMessage::Delay { delay, limit });
        }
        match self.message.properties.expires_after {
            Some(_) => Err(InvalidMessage::DelayedAndExpiring),
            None => Ok(()),
        }
    }
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination {
    /// To every queue that is bound to the exchange with a pattern that matches the topic.
    Exchange {
        /// The exchange's name.
        name: String,
        /// The topic, which is the routing key.
        topic: Topic,
    },
    /// To one queue by its name.
    Queue(String),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange { name, topic } => write!(f, "topic {topic} of exchange {name}"),
            Self::Queue(name) => write!(f, "queue {name}"),
        }
    }
}
