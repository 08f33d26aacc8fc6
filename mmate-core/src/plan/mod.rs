//! What a service has on a broker, as data: to be read before it is made.

mod mermaid;
mod text;

use crate::transport::{QueuePlan, Transport};

/// What a service uses on a broker: queues, what is routed into them, who takes from them, and where
/// dead letters and delayed messages go. Made by [`Service::topology`](crate::Service::topology).
///
/// It prints as text, and as a flowchart for [Mermaid](https://mermaid.js.org):
///
/// ```
/// use mmate_core::{HandlerError, InProcess, Service, Subscription};
///
/// async fn charge() -> Result<(), HandlerError> { Ok(()) }
///
/// let service = Service::new("billing")
///     .subscribe(Subscription::per_service("charge-card", ["order.paid.*"]).handler(charge));
/// let topology = service.topology().on(&InProcess::new());
/// println!("{topology}");
/// assert!(topology.to_mermaid().starts_with("flowchart LR\n"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    service: String,
    queues: Vec<PlannedQueue>,
}

/// A queue of a [`Topology`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedQueue {
    /// The queue as the subscription needs it.
    pub plan: QueuePlan,
    /// The subscription that takes from it.
    pub subscription: String,
    /// What the broker is asked for, the queue itself first. Empty unless a transport
    /// [explained](Topology::on) it.
    pub made: Vec<MadeQueue>,
}

/// A queue as a broker is asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MadeQueue {
    /// Its name; with `{…}` for a part that is different in each of several.
    pub name: String,
    /// What it is for.
    pub role: QueueRole,
    /// What it is, in the broker's words, such as `quorum, durable`.
    pub kind: String,
    /// Its arguments by name, in the broker's words.
    pub arguments: Vec<(String, String)>,
}

impl MadeQueue {
    /// A queue without arguments.
    #[must_use]
    pub fn new(name: impl Into<String>, role: QueueRole, kind: impl Into<String>) -> Self {
        Self { name: name.into(), role, kind: kind.into(), arguments: Vec::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.arguments.push((name.into(), value.into()));
        self
    }
}

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueueRole {
    /// A subscription takes from it.
    Work,
    /// It keeps what was given up.
    DeadLetters,
    /// Messages wait in it for their next attempt. Made when one first does.
    Delay,
}

impl Topology {
    pub(crate) fn new(
        service: &str,
        queues: impl IntoIterator<Item = (String, QueuePlan)>,
    ) -> Self {
        let planned = |(subscription, plan)| PlannedQueue { plan, subscription, made: Vec::new() };
        Self { service: service.to_owned(), queues: queues.into_iter().map(planned).collect() }
    }

    /// Adds what a broker is asked for in its own words. Nothing is connected to.
    #[must_use]
    pub fn on<T: Transport + ?Sized>(mut self, transport: &T) -> Self {
        for queue in &mut self.queues {
            queue.made = transport.explain(&queue.plan);
        }
        self
    }

    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The queues, in the order of the subscriptions.
    #[must_use]
    pub fn queues(&self) -> &[PlannedQueue] {
        &self.queues
    }

    /// The exchanges that messages are routed from, sorted.
    #[must_use]
    pub fn exchanges(&self) -> Vec<&str> {
        let bindings = self.queues.iter().flat_map(|queue| &queue.plan.bindings);
        let names: std::collections::BTreeSet<_> =
            bindings.map(|binding| binding.exchange.as_str()).collect();
        names.into_iter().collect()
    }

    /// A flowchart in the language of Mermaid: exchanges, what is routed from them into which
    /// queue, the subscription that takes from it, and its dead-letter queue.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        mermaid::draw(self)
    }
}
