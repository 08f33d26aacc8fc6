//! How a subscription is put together.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::plans::{Stack, Stacked};
use super::replies::Replies;
use super::{OrderKey, RetryPolicy, Scope, TypeFilter, check_name};
use crate::batch::{BatchHandler, BatchPolicy};
use crate::handler::{AnyHandler, Handler};
use crate::message::wire;
use crate::middleware::{Idempotency, Middleware};
use crate::service::ConfigError;
use crate::topic::TopicPattern;
use crate::transport::{Binding, Declare, QueueKind, QueueMode};

/// Which messages a service takes, from which queue, and what handles them. Made by
/// [`SubscriptionBuilder::handler`].
#[derive(Debug)]
#[must_use = "a subscription does nothing until a service has it"]
pub struct Subscription {
    pub(crate) parts: SubscriptionBuilder,
    pub(crate) handler: AnyHandler,
}

impl Subscription {
    /// A queue that is shared under its own name: every service that names it competes for its
    /// messages (load balancing). What is routed into it is said with
    /// [`topics`](SubscriptionBuilder::topics); messages sent to the queue by name arrive too.
    ///
    /// ```
    /// use mmate_core::{HandlerError, Subscription};
    /// # async fn process() -> Result<(), HandlerError> { Ok(()) }
    /// let subscription = Subscription::shared("order-processor").topics(["order.*.*"]).handler(process);
    /// # let _ = subscription;
    /// ```
    pub fn shared(queue: impl Into<String>) -> SubscriptionBuilder {
        SubscriptionBuilder::new(queue.into(), QueueMode::Shared)
    }

    /// A queue per service, named `{service}.{name}`: each service gets its own copy of a message,
    /// and the instances of the service compete for it.
    pub fn per_service<I>(name: impl Into<String>, topics: I) -> SubscriptionBuilder
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        SubscriptionBuilder::new(name.into(), QueueMode::PerService).topics(topics)
    }

    /// A queue per running instance, named `{service}.{name}.{instance}`: every process gets its
    /// own copy, and the queue ends with the process. For caches and the like.
    pub fn per_instance<I>(name: impl Into<String>, topics: I) -> SubscriptionBuilder
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        SubscriptionBuilder::new(name.into(), QueueMode::PerInstance).topics(topics)
    }
}

/// A subscription without a handler yet.
///
/// What is wrong with it (a topic pattern that is none, a name that cannot be one) is told all at
/// once when the service starts.
#[derive(Debug)]
#[must_use = "a subscription is finished by .handler(…)"]
pub struct SubscriptionBuilder {
    pub(crate) name: String,
    pub(crate) mode: QueueMode,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) types: TypeFilter,
    pub(crate) kind: QueueKind,
    pub(crate) max_priority: Option<u8>,
    pub(crate) declare: Option<Declare>,
    pub(crate) prefetch: NonZeroU16,
    pub(crate) concurrency: usize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) scope: Scope,
    pub(crate) order: Option<OrderKey>,
    pub(crate) single_active_consumer: bool,
    pub(crate) partitions: Option<u16>,
    pub(crate) middleware: Stack,
    pub(crate) idempotency: Option<Stacked>,
    pub(crate) replies: Replies,
    pub(crate) errors: Vec<ConfigError>,
}

/// Measured on a quorum queue, 200 gives 0.82 of what 1,000 gives, 100 two thirds and 10 a seventh
/// (`docs/performance/prefetch.md`); a few hundred keep most of it and bound what a crash makes the
/// broker show again.
const DEFAULT_PREFETCH: NonZeroU16 = NonZeroU16::new(200).expect("200 is not 0");
/// Measured with a handler that waits for 2 ms, what comes of it grows in a straight line to 256 at
/// least (`docs/performance/concurrency.md`); 16 are enough for 5,000 messages a second then, and
/// no more than what pools of connections are made for.
const DEFAULT_CONCURRENCY: usize = 16;
/// With the defaults above, a message that waits for 12 others waits 26 minutes at most, which is
/// below RabbitMQ's `consumer_timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

impl SubscriptionBuilder {
    fn new(name: String, mode: QueueMode) -> Self {
        let what = if mode == QueueMode::Shared { "queue" } else { "subscription" };
        let errors = check_name(what, &name).err().map(ConfigError::from);
        Self {
            name,
            mode,
            bindings: Vec::new(),
            types: TypeFilter::default(),
            kind: QueueKind::Quorum,
            max_priority: None,
            declare: None,
            prefetch: DEFAULT_PREFETCH,
            concurrency: DEFAULT_CONCURRENCY,
            timeout: Some(DEFAULT_TIMEOUT),
            retry: RetryPolicy::default(),
            scope: Scope::Subscription,
            order: None,
            single_active_consumer: false,
            partitions: None,
            middleware: Stack::default(),
            idempotency: None,
            replies: Replies::default(),
            errors: errors.into_iter().collect(),
        }
    }

    /// Adds topic patterns for events, such as `order.*.us-west`. Many patterns make one queue
    /// with many bindings, into which a message comes once: the cheapest deduplication there is.
    pub fn topics<I>(self, patterns: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.topics_of(wire::EVENTS, patterns)
    }

    /// Adds the commands for a service: everything published to `cmd.{service}.*`.
    pub fn commands_for(self, service: &str) -> Self {
        self.topics_of(wire::COMMANDS, [format!("cmd.{service}.*")])
    }

    /// Adds topic patterns on an exchange of that name.
    pub fn topics_of<I>(mut self, exchange: &str, patterns: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        for pattern in patterns {
            match TopicPattern::new(pattern) {
                Ok(pattern) => self.bindings.push(Binding::new(exchange, pattern)),
                Err(error) => self.errors.push(error.into()),
            }
        }
        self
    }

    /// Takes only messages of this type: a name or a glob such as `Order*`. Several calls add up.
    /// Others are acknowledged and forgotten.
    pub fn message_type(mut self, filter: impl AsRef<str>) -> Self {
        if let Err(error) = self.types.add(filter.as_ref()) {
            self.errors.push(error.into());
        }
        self
    }

    /// What the queue is made of; a quorum queue unless said otherwise.
    pub fn queue_kind(mut self, kind: QueueKind) -> Self {
        self.kind = kind;
        self
    }

    /// Gives the queue priorities from 0 to `highest`: a message that is
    /// [more urgent](crate::Outgoing::priority) is shown before all that wait, and one above the
    /// highest counts as that. A handful is enough; each costs the broker memory. 0 is none.
    ///
    /// For a queue of [`QueueKind::Classic`] and for one per instance. A quorum queue does not have
    /// them on RabbitMQ 3, and two that cannot be chosen on RabbitMQ 4; a service that asks for them
    /// does not start. What is prefetched has been shown: a low
    /// [`prefetch`](Self::prefetch) lets what is urgent come sooner.
    ///
    /// It is an argument of the queue: a queue that exists without it is a mismatch.
    ///
    /// ```
    /// # use mmate_core::{HandlerError, QueueKind, Subscription};
    /// # async fn handle() -> Result<(), HandlerError> { Ok(()) }
    /// let alarms = Subscription::per_service("alarms", ["sensor.*.*"])
    ///     .queue_kind(QueueKind::Classic)
    ///     .max_priority(9)
    ///     .handler(handle);
    /// # let _ = alarms;
    /// ```
    pub fn max_priority(mut self, highest: u8) -> Self {
        self.max_priority = Some(highest).filter(|highest| *highest > 0);
        self
    }

    /// Uses the queue as it is, and fails to start if it is missing. What belongs to it (bindings,
    /// the dead-letter queue) is made.
    pub fn passive(self) -> Self {
        self.declare(Declare::Passive)
    }

    /// Whether the queue and what belongs to it are made, checked or left alone; as
    /// [`Service::declare`](crate::Service::declare) says by default. A queue per instance is
    /// always made: it lives and ends with the process.
    pub fn declare(mut self, mode: Declare) -> Self {
        self.declare = Some(mode);
        self
    }

    /// How many deliveries the broker hands over before the first is settled; 200 by default.
    pub fn prefetch(mut self, deliveries: NonZeroU16) -> Self {
        self.prefetch = deliveries;
        self
    }

    /// How many messages are handled at the same time in this process; 16 by default. With 1 they
    /// are handled in the order of the queue.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        if handlers == 0 {
            self.errors.push(ConfigError::ZeroConcurrency { subscription: self.name.clone() });
        }
        self.concurrency = handlers;
        self
    }

    /// Handles the messages of one key one after another, in the order of the queue, and different
    /// keys in parallel up to [`concurrency`](Self::concurrency).
    ///
    /// A message that fails, or is deferred, waits for its next attempt in the process and keeps
    /// its delivery, so that no later message of its key overtakes it; other keys go on. When its
    /// attempts are used up it is dead-lettered, and its lane goes on. While it waits it holds a
    /// place in the [`prefetch`](Self::prefetch), and so does every later message of its key that
    /// was fetched: a lane that is blocked for long can fill it, so have it large enough for what
    /// comes during the longest wait. Attempts are counted in the process meanwhile: one that
    /// dies, or drains, gives its messages back as they came.
    ///
    /// This holds within one process. With several, the queue must give its messages to one of
    /// them at a time: see [`single_active_consumer`](Self::single_active_consumer).
    ///
    /// ```
    /// use mmate_core::{HandlerError, OrderKey, Subscription};
    /// # async fn book() -> Result<(), HandlerError> { Ok(()) }
    /// let subscription = Subscription::per_service("book", ["account.*.*"])
    ///     .ordered_by(OrderKey::header("account-id"))
    ///     .handler(book);
    /// # let _ = subscription;
    /// ```
    pub fn ordered_by(mut self, key: OrderKey) -> Self {
        self.order = Some(key);
        self
    }

    /// Has the broker give messages to one of the queue's consumers at a time; when that one is
    /// gone, the next takes over, with everything that was not finished, in its order. Together
    /// with [`ordered_by`](Self::ordered_by) this keeps the order across processes; the others are
    /// there for when the first fails.
    ///
    /// It is a property of the queue: one that is there without it is a mismatch, and with
    /// [`passive`](Self::passive) whoever made the queue has decided. A queue per instance has one
    /// consumer anyway, and does not take this.
    pub fn single_active_consumer(mut self) -> Self {
        self.single_active_consumer = true;
        self
    }

    /// Parts the queue into so many, `{queue}.0`, `{queue}.1`, …: messages of one key are always in
    /// the same part, and each part has a [single active consumer](Self::single_active_consumer).
    /// So instances can share the keys of an [`ordered_by`](Self::ordered_by) subscription, whose
    /// key must be one that a broker can hash: a header, the correlation id, or the topic.
    ///
    /// Each instance consumes all parts, with the [`prefetch`](Self::prefetch) for each of them,
    /// and the broker serves the one that came first to a part: another takes over when that one
    /// is gone, and not before. Messages come by topic; none can be sent to the queue by its name.
    /// Dead letters of all parts go to the one `dlq.{queue}`.
    ///
    /// With another number of parts a key may be in another part than before, and overtake what is
    /// still in the old one: let the queues run empty before you raise the number, and delete
    /// those above it after you lower it.
    ///
    /// On RabbitMQ this needs the plugin `rabbitmq_consistent_hash_exchange`, which comes with it:
    /// `rabbitmq-plugins enable rabbitmq_consistent_hash_exchange`.
    ///
    /// ```
    /// use mmate_core::{HandlerError, OrderKey, Subscription};
    /// # async fn book() -> Result<(), HandlerError> { Ok(()) }
    /// let subscription = Subscription::per_service("book", ["account.*.*"])
    ///     .ordered_by(OrderKey::header("account-id"))
    ///     .partitions(8)
    ///     .handler(book);
    /// # let _ = subscription;
    /// ```
    pub fn partitions(mut self, parts: u16) -> Self {
        self.partitions = Some(parts);
        self
    }

    /// How long one handling may take before it counts as failed; 2 minutes by default. RabbitMQ
    /// closes a channel whose delivery is older than its `consumer_timeout`, 30 minutes, and the
    /// time that a message waits here for others counts too; a service whose timeout is above it
    /// does not start.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// When a failed message is tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Within which an id stands for one effect; the subscription by default.
    pub fn scope(mut self, scope: Scope) -> Self {
        if let Scope::Named(name) = &scope
            && let Err(error) = check_name("scope", name)
        {
            self.errors.push(error.into());
        }
        self.scope = scope;
        self
    }

    /// Adds a middleware inside those added before. It sees duplicates too, being outside of
    /// [`idempotent`](Self::idempotent).
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.middleware.0.push(Arc::new(middleware));
        self
    }

    /// Suppresses duplicates with a strategy, such as `Transactional` or `Tracked` of
    /// `mmate-idempotency`.
    pub fn idempotent(mut self, strategy: impl Idempotency) -> Self {
        self.idempotency = Some(Stacked(Arc::new(strategy)));
        self
    }

    /// Finishes the subscription with what handles its messages.
    pub fn handler<H, Args>(self, handler: H) -> Subscription
    where
        H: Handler<Args>,
        Args: 'static,
    {
        Subscription { parts: self, handler: AnyHandler::new(handler) }
    }

    /// Finishes the subscription with what handles its messages many at a time.
    ///
    /// Each message goes through its middleware on its own; where a handler would be it waits for
    /// others, as the policy says, and afterwards takes its own outcome back. So middleware, and
    /// [`idempotent`](Self::idempotent), work for each message: a duplicate does not reach the
    /// batch, and each is retried on its own count of attempts. With `Transactional` a batch is one
    /// transaction, which the handler takes as its `Tx`. A payload that
    /// cannot be decoded is dead-lettered alone. An error, a panic and the
    /// [`timeout`](Self::timeout) are those of all messages in the batch.
    ///
    /// [`concurrency`](Self::concurrency) is the number of batches handled at the same time; the
    /// [`prefetch`](Self::prefetch) must hold one batch at least, and holds as many as shall be
    /// handled at once. When the service stops, what has gathered is handled without waiting for
    /// more. With [`ordered_by`](Self::ordered_by), a batch has one message of a key.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mmate_core::{Batch, BatchPolicy, HandlerError, State, Subscription};
    /// # #[derive(serde::Deserialize)] struct OrderCreated;
    /// # #[derive(Clone)] struct Pool;
    ///
    /// async fn store(batch: Batch<OrderCreated>, State(pool): State<Pool>) -> Result<(), HandlerError> {
    ///     # let _ = (batch, pool);
    ///     // One statement for all of them…
    ///     Ok(())
    /// }
    ///
    /// let policy = BatchPolicy::up_to(100).within(Duration::from_millis(50));
    /// let subscription = Subscription::per_service("store", ["order.created.*"])
    ///     .concurrency(2)
    ///     .batch_handler(policy, store);
    /// # let _ = subscription;
    /// ```
    pub fn batch_handler<H, Args>(self, policy: BatchPolicy, handler: H) -> Subscription
    where
        H: BatchHandler<Args>,
        Args: 'static,
    {
        Subscription { parts: self, handler: AnyHandler::of_batches(handler, policy) }
    }
}
