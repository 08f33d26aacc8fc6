//! A broker inside the process.

mod broker;
mod browser;
mod chaos;
mod connection;
mod consumer;
mod declaring;
mod expiry;
mod later;
mod queue;
mod routes;
mod subscriber;
mod trail;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

pub use chaos::Chaos;
pub use queue::QueueState;

use crate::message::{Message, wire};
use crate::transport::{Connection, Limits, Transport, TransportError};
use broker::Broker;
use connection::InProcessConnection;

/// A broker inside the process, to test a service without a server.
///
/// It keeps the whole contract of a [`Transport`], and passes the same suite as RabbitMQ (the module
/// `conformance`, a feature of this crate): topic routing, competing consumers, prefetch,
/// redelivery, delay, dead letters. All clones are the same broker, which ends with the last of
/// them. Nothing runs in the background, and time is tokio's: with
/// `#[tokio::test(start_paused = true)]` a retry after an hour takes no time.
///
/// What goes wrong at a real broker goes wrong here on demand: messages that come twice and
/// acknowledgements that get lost, by chance ([`chaos`](Self::chaos)) or exactly then
/// ([`duplicate_next`](Self::duplicate_next), [`drop_next_acks`](Self::drop_next_acks)), cut
/// connections ([`cut`](Self::cut)) and a broker that is away ([`pause`](Self::pause)).
///
/// ```
/// use mmate_core::{HandlerError, InProcess, Json, Outgoing, Permanent, Service, Subscription};
///
/// async fn ship(Json(quantity): Json<i64>) -> Result<(), HandlerError> {
///     u32::try_from(quantity).permanent()?;
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = InProcess::new();
/// let shipping = Service::new("shipping")
///     .subscribe(Subscription::per_service("ship", ["order.paid.*"]).handler(ship))
///     .start(broker.clone())
///     .await?;
///
/// shipping.publisher().publish(Outgoing::event("order.paid.eu", "OrderPaid", &-1)).await?;
/// broker.idle().await;
/// assert_eq!(broker.dead_letters("shipping.ship").len(), 1);
/// # shipping.stop().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct InProcess {
    broker: Arc<Broker>,
    limits: Limits,
}

impl InProcess {
    /// A broker of its own, without queues.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that it has a real broker's limits, to see at the start of a service what would not
    /// work there. Of them it enforces only how long a message may be delayed by its publisher.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns when nothing is left to do: no queue that has a consumer has a message, be it
    /// waiting, held by a consumer or delayed, and nothing that was [published for
    /// later](crate::Outgoing::delay) would go to one now. What was published before this is called
    /// counts.
    ///
    /// A message that is deferred for ever, or a handler that never ends, keeps this waiting.
    pub async fn idle(&self) {
        self.broker.idle().await;
    }

    /// What is in a queue now, or `None` if there is no such queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<QueueState> {
        self.broker.lock().queue_state(name)
    }

    /// The names of all queues, sorted.
    #[must_use]
    pub fn queues(&self) -> Vec<String> {
        self.broker.lock().queue_names()
    }

    /// The messages that wait in a queue, in the order in which they would be shown. None if there
    /// is no such queue.
    #[must_use]
    pub fn messages(&self, queue: &str) -> Vec<Message> {
        self.broker.lock().messages(queue)
    }

    /// The messages that were dead-lettered from a queue, oldest first. Why, is told by the
    /// headers that [`wire`](crate::message::wire) names.
    #[must_use]
    pub fn dead_letters(&self, queue: &str) -> Vec<Message> {
        self.messages(&wire::dead_letter_queue(queue))
    }

    /// Lets things go wrong by chance from now on, instead of what was set before.
    pub fn chaos(&self, chaos: Chaos) {
        self.broker.lock().faults.set(chaos);
    }

    /// The next `count` messages that reach a queue are put into it a second time, as if their
    /// publisher had repeated itself.
    pub fn duplicate_next(&self, count: usize) {
        self.broker.lock().faults.duplicate_next(count);
    }

    /// The next `count` acknowledgements get lost: the consumer is told
    /// [`Settled::Lost`](crate::Settled::Lost), and the message is shown again.
    pub fn drop_next_acks(&self, count: usize) {
        self.broker.lock().faults.drop_next_acks(count);
    }

    /// The confirmations of the next `count` messages get lost: they reach their queues, and their
    /// publisher is told [`PublishError::Ambiguous`](crate::PublishError::Ambiguous).
    pub fn drop_next_confirms(&self, count: usize) {
        self.broker.lock().faults.drop_next_confirms(count);
    }

    /// Cuts all connections. What is unsettled goes back to its queue, marked redelivered, and
    /// settling it is lost. Queues per instance lose what they have. Consumers and publishers go on
    /// by themselves, on new connections.
    pub fn cut(&self) {
        self.broker.cut();
    }

    /// Takes the broker away: as [`cut`](Self::cut), but nothing gets through until
    /// [`resume`](Self::resume). Who connects, declares, consumes or publishes meanwhile waits.
    pub fn pause(&self) {
        self.broker.pause();
    }

    /// Brings the broker back.
    pub fn resume(&self) {
        self.broker.resume();
    }
}

#[async_trait]
impl Transport for InProcess {
    async fn connect(&self, _service: &str) -> Result<Box<dyn Connection>, TransportError> {
        Ok(Box::new(InProcessConnection::open(&self.broker, self.limits.longest_delay).await))
    }

    fn describe(&self) -> String {
        "in-process".to_owned()
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess").field("queues", &self.queues()).finish_non_exhaustive()
    }
}
