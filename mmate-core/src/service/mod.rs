//! The service: subscriptions on a transport, from start to drain.

mod adoption;
mod check;
mod error;
mod lanes;
mod ordering;
mod overlap;
mod pace;
mod parts;
mod run;
mod tasks;
mod verdict;
mod worker;

use std::sync::Arc;
use std::time::Duration;

pub use check::Surroundings;
pub use error::{ConfigError, ServiceError};
pub use overlap::Overlap;
pub use run::{Run, Running, shutdown_signal};

use crate::context::Extensions;
use crate::handler::Handler;
use crate::message::wire;
use crate::outcome::BoxError;
use crate::plan::Topology;
use crate::subscription::{Subscription, check_name};
use crate::transport::{Declare, QueueMode, QueuePlan, Transport};

/// A service: a name, subscriptions, and what their handlers share.
///
/// ```
/// use mmate_core::{HandlerError, InProcess, Json, Outgoing, Service, Subscription};
///
/// async fn greet(Json(name): Json<String>) -> Result<(), HandlerError> {
///     println!("hello {name}");
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = InProcess::new();
/// let running = Service::new("greeter")
///     .subscribe(Subscription::per_service("greet", ["user.created.*"]).handler(greet))
///     .start(broker.clone())
///     .await?;
///
/// running.publisher().publish(Outgoing::event("user.created.eu", "UserCreated", "Ada")).await?;
/// broker.idle().await;
/// assert_eq!(running.stats().total().succeeded, 1);
/// running.stop().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a service does nothing until it runs"]
pub struct Service {
    name: Arc<str>,
    instance: Arc<str>,
    subscriptions: Vec<Subscription>,
    state: Extensions,
    drain_timeout: Duration,
    propagated: Vec<String>,
    max_hops: u32,
    declare: Declare,
    errors: Vec<ConfigError>,
}

const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than any chain that is meant; one that loops is there within seconds.
const DEFAULT_MAX_HOPS: u32 = 1_000;

impl Service {
    /// A service of this name. Its instances carry the same name and share its queues.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        let errors = check_name("service", &name).err().map(ConfigError::from);
        Self {
            name,
            instance: format!("{:08x}", fastrand::u32(..)).into(),
            subscriptions: Vec::new(),
            state: Extensions::default(),
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            propagated: Vec::new(),
            max_hops: DEFAULT_MAX_HOPS,
            declare: Declare::Create,
            errors: errors.into_iter().collect(),
        }
    }

    /// Names this instance; at random otherwise. No two instances that run at the same time may
    /// have the same name.
    pub fn instance(mut self, name: impl Into<Arc<str>>) -> Self {
        self.instance = name.into();
        if let Err(error) = check_name("instance", &self.instance) {
            self.errors.push(error.into());
        }
        self
    }

    /// Adds a subscription.
    pub fn subscribe(mut self, subscription: Subscription) -> Self {
        self.subscriptions.push(subscription);
        self
    }

    /// Subscribes to the events `{entity}.{action}.{region}`, each of the three a word or `*`: the
    /// short form of [`Subscription::per_service`] with one pattern and nothing else set. The
    /// subscription is named after the pattern, with `any` for `*`.
    ///
    /// It has no idempotency: a handler that has an effect wants
    /// [`idempotent`](crate::SubscriptionBuilder::idempotent), and so the long form.
    pub fn subscribe_event_pattern<H, Args>(
        self,
        entity: &str,
        action: &str,
        region: &str,
        handler: H,
    ) -> Self
    where
        H: Handler<Args>,
        Args: 'static,
    {
        let pattern = format!("{entity}.{action}.{region}");
        let name = pattern.replace('*', "any");
        self.subscribe(Subscription::per_service(name, [pattern]).handler(handler))
    }

    /// Gives a value to the handlers, which take a clone of it as
    /// [`State<S>`](crate::State).
    pub fn state<S: Clone + Send + Sync + 'static>(mut self, value: S) -> Self {
        self.state.insert(value);
        self
    }

    /// How long a stop waits for handlers that are running; 30 s by default. What still runs then
    /// is dropped, and its message goes back to the queue.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.drain_timeout = limit;
        self
    }

    /// Names headers that go from a message to all that its handler publishes, such as a tenant's
    /// name. Nothing else does, but for the correlation id and the trace (`traceparent`,
    /// `tracestate`). A header that the handler sets itself stays as it is.
    ///
    /// ```
    /// # use mmate_core::Service;
    /// let service = Service::new("billing").propagate_headers(["tenant", "locale"]);
    /// # let _ = service;
    /// ```
    pub fn propagate_headers<I>(mut self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        for name in names.into_iter().map(Into::into) {
            if name.is_empty() || name.len() > 255 || wire::is_reserved(&name) {
                self.errors.push(ConfigError::Header { name });
            } else {
                self.propagated.push(name);
            }
        }
        self
    }

    /// How many messages a chain may have, each published by the handler of the one before; 1,000 by
    /// default. What comes after that is dead-lettered with the reason `hop-limit`, so that services
    /// which set each other off without end are stopped. What goes on for ever by design
    /// [begins a new chain](crate::Outgoing::begin_chain) now and then.
    ///
    /// ```
    /// # use mmate_core::Service;
    /// let service = Service::new("billing").max_hops(20);
    /// # let _ = service;
    /// ```
    pub fn max_hops(mut self, hops: u32) -> Self {
        self.max_hops = hops;
        self
    }

    /// Whether queues and what belongs to them are made, checked or left alone; made by default.
    /// [`SubscriptionBuilder::declare`](crate::SubscriptionBuilder::declare) says it for one.
    ///
    /// ```
    /// use mmate_core::{Declare, Service};
    /// // Somebody else makes the queues; if one is missing, this does not start.
    /// let service = Service::new("billing").declare(Declare::Verify);
    /// # let _ = service;
    /// ```
    pub fn declare(mut self, mode: Declare) -> Self {
        self.declare = mode;
        self
    }

    /// What the service uses on a broker, to be read or printed before it starts.
    #[must_use]
    pub fn topology(&self) -> Topology {
        let queues = self.subscriptions.iter().flat_map(|subscription| {
            let name = &subscription.parts.name;
            self.plans_of(subscription).into_iter().map(move |plan| (name.clone(), plan))
        });
        Topology::new(&self.name, queues)
    }

    fn plans_of(&self, subscription: &Subscription) -> Vec<QueuePlan> {
        subscription.parts.queue_plans(&self.name, &self.instance, self.declare)
    }

    /// The pairs of subscriptions that some topic reaches both of. Each also stands in the log
    /// when the service starts.
    #[must_use]
    pub fn overlaps(&self) -> Vec<Overlap> {
        overlap::find(self)
    }

    /// Starts the service, and returns when every queue is declared and consumed.
    ///
    /// # Errors
    /// [`ServiceError`]: everything that is wrong with the configuration at once, or what the
    /// broker or a store refused. While the broker cannot be reached this goes on trying; dropping
    /// the future stops it.
    pub async fn start<T: Transport>(self, transport: T) -> Result<Running, ServiceError> {
        run::start(self, transport).await
    }

    /// Runs the service until its shutdown signal, or until it fails.
    ///
    /// ```no_run
    /// # use mmate_core::{InProcess, Service, ServiceError, shutdown_signal};
    /// # async fn example() -> Result<(), ServiceError> {
    /// # let (service, transport) = (Service::new("s"), InProcess::new());
    /// service.run(transport).with_graceful_shutdown(shutdown_signal()).await
    /// # }
    /// ```
    pub fn run<T: Transport>(self, transport: T) -> Run<T> {
        Run::new(self, transport)
    }

    fn scope_of(&self, subscription: &Subscription) -> Arc<str> {
        let parts = &subscription.parts;
        let instance = (parts.mode == QueueMode::PerInstance).then_some(&*self.instance);
        parts.scope.text(&self.name, &parts.name, instance)
    }
}

/// A failure of a middleware to start, with the subscription it belongs to.
fn middleware_failed(subscription: &str, source: BoxError) -> ServiceError {
    ServiceError::Middleware { subscription: subscription.to_owned(), source }
}
