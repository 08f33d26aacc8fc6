//! How a subscription is put together.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::replies::Replies;
use super::{RetryPolicy, Scope, TypeFilter, check_name};
use crate::handler::{AnyHandler, Handler};
use crate::message::wire;
use crate::middleware::{Idempotency, Middleware};
use crate::service::ConfigError;
use crate::topic::TopicPattern;
use crate::transport::{Binding, Declare, QueueKind, QueueMode, QueuePlan};

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
    pub(crate) declare: Option<Declare>,
    pub(crate) prefetch: NonZeroU16,
    pub(crate) concurrency: usize,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) scope: Scope,
    pub(crate) middleware: Stack,
    pub(crate) idempotency: Option<Stacked>,
    pub(crate) replies: Replies,
    pub(crate) errors: Vec<ConfigError>,
}

/// Middleware, outermost first.
#[derive(Default)]
pub(crate) struct Stack(pub(crate) Vec<Arc<dyn Middleware>>);

/// One middleware.
pub(crate) struct Stacked(pub(crate) Arc<dyn Middleware>);

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} middleware", self.0.len())
    }
}

impl std::fmt::Debug for Stacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a middleware")
    }
}

/// Measured on a quorum queue, 100 gives half of what 1,000 gives, and 10 an eighth; a few hundred
/// keep most of it and bound what a crash makes the broker show again.
const DEFAULT_PREFETCH: NonZeroU16 = NonZeroU16::new(200).expect("200 is not 0");
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
            declare: None,
            prefetch: DEFAULT_PREFETCH,
            concurrency: DEFAULT_CONCURRENCY,
            timeout: Some(DEFAULT_TIMEOUT),
            retry: RetryPolicy::default(),
            scope: Scope::Subscription,
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

    /// All middleware, outermost first; the idempotency strategy is the innermost.
    pub(crate) fn all_middleware(&self) -> Vec<Arc<dyn Middleware>> {
        let innermost = self.idempotency.iter().map(|stacked| &stacked.0);
        self.middleware.0.iter().chain(innermost).cloned().collect()
    }

    /// The queue as the broker shall have it.
    pub(crate) fn queue_plan(&self, service: &str, instance: &str, declare: Declare) -> QueuePlan {
        let name = match self.mode {
            QueueMode::Shared => self.name.clone(),
            QueueMode::PerService => format!("{service}.{}", self.name),
            QueueMode::PerInstance => format!("{service}.{}.{instance}", self.name),
        };
        let mut plan = QueuePlan::new(name, self.mode);
        plan.kind = self.kind;
        plan.declare = match self.mode {
            QueueMode::PerInstance => Declare::Create,
            QueueMode::Shared | QueueMode::PerService => self.declare.unwrap_or(declare),
        };
        plan.bindings.clone_from(&self.bindings);
        plan
    }
}
