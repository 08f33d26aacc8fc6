//! What the cases are written with.

use std::time::Duration;

use super::Harness;
use crate::message::{Message, wire};
use crate::topic::{Topic, TopicPattern};
use crate::transport::{
    Connection, Consumer, Declare, Delivery, Destination, Publication, PublishError, QueueMode,
    QueuePlan, Settled, Settlement, Transport,
};

/// The longest that a thing which must happen may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Awaits what must happen.
pub(super) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(LIMIT, happens).await;
    happened.unwrap_or_else(|_| panic!("{what} did not happen within {LIMIT:?}"))
}

/// Waits until an asked question is answered with yes, for things that a broker tells nobody.
pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    soon(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// One case's own corner of the broker: a connection, and names that nobody else uses.
pub(super) struct Stage<'a, H> {
    pub(super) harness: &'a H,
    pub(super) connection: Box<dyn Connection>,
    root: String,
}

impl<'a, H: Harness> Stage<'a, H> {
    pub(super) async fn new(harness: &'a H) -> Self {
        let root = harness.unique_name();
        let connection = connect(harness).await;
        Self { harness, connection, root }
    }

    /// A second connection to the same broker.
    pub(super) async fn connect(&self) -> Box<dyn Connection> {
        connect(self.harness).await
    }

    /// A name of this case.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.root)
    }

    pub(super) fn topic(&self, rest: &str) -> Topic {
        Topic::new(self.name(rest)).expect("a case's topic is a topic")
    }

    pub(super) fn pattern(&self, rest: &str) -> TopicPattern {
        TopicPattern::new(self.name(rest)).expect("a case's pattern is a pattern")
    }

    /// The destination of an event.
    pub(super) fn event(&self, rest: &str) -> Destination {
        Destination::Exchange { name: wire::EVENTS.to_owned(), topic: self.topic(rest) }
    }

    /// A durable queue for events, not yet declared.
    pub(super) fn plan(&self, name: &str, patterns: &[&str]) -> QueuePlan {
        self.plan_of(QueueMode::PerService, name, patterns)
    }

    /// A queue per instance for events, not yet declared.
    pub(super) fn own_plan(&self, name: &str, patterns: &[&str]) -> QueuePlan {
        self.plan_of(QueueMode::PerInstance, name, patterns)
    }

    fn plan_of(&self, mode: QueueMode, name: &str, patterns: &[&str]) -> QueuePlan {
        let plan = QueuePlan::new(self.name(name), mode);
        patterns.iter().fold(plan, |plan, rest| plan.bind(wire::EVENTS, self.pattern(rest)))
    }

    /// A durable queue for events, declared.
    pub(super) async fn queue(&self, name: &str, patterns: &[&str]) -> QueuePlan {
        let plan = self.plan(name, patterns);
        declare(&*self.connection, &plan).await;
        plan
    }

    /// A consumer on the case's first connection.
    pub(super) async fn inbox(&self, queue: &QueuePlan) -> Inbox {
        Inbox::open(&*self.connection, queue, 100).await
    }

    /// A consumer of a queue's dead letters.
    pub(super) async fn dead_letters(&self, queue: &QueuePlan) -> Inbox {
        let mut plan = QueuePlan::new(queue.dead_letter_queue(), QueueMode::Shared);
        plan.declare = Declare::LeaveAlone;
        self.inbox(&plan).await
    }

    /// Publishes an event with this body.
    pub(super) async fn publish(&self, topic: &str, body: &str) {
        send(&*self.connection, self.event(topic), Message::new(body.to_owned())).await;
    }

    /// Publishes straight into a queue.
    pub(super) async fn put(&self, queue: &QueuePlan, message: Message) {
        send(&*self.connection, Destination::Queue(queue.name.clone()), message).await;
    }

    /// Waits until so many messages wait in a queue.
    pub(super) async fn until_ready(&self, queue: &QueuePlan, count: usize) {
        let what = format!("{count} messages waiting in {}", queue.name);
        eventually(&what, || async { self.harness.ready(&queue.name).await == count }).await;
    }
}

pub(super) async fn connect<H: Harness>(harness: &H) -> Box<dyn Connection> {
    let transport = harness.transport();
    let connecting = transport.connect("conformance");
    soon("connecting", connecting).await.expect("the transport connects")
}

pub(super) async fn declare(connection: &dyn Connection, plan: &QueuePlan) {
    let declared = soon("declaring a queue", connection.declare(plan)).await;
    declared.expect("the queue is declared");
}

/// Publishes a message that must reach a queue. One that nobody knows the fate of is repeated.
pub(super) async fn send(connection: &dyn Connection, to: Destination, message: Message) {
    loop {
        let publication = Publication::new(to.clone(), message.clone());
        match soon("publishing", connection.publish(publication)).await {
            Ok(()) => return,
            Err(PublishError::Ambiguous { .. }) => {}
            Err(error) => panic!("a message is published: {error}"),
        }
    }
}

pub(super) async fn settle(delivery: Delivery, settlement: Settlement) {
    let settled = soon("settling", delivery.settle(settlement)).await;
    assert_eq!(settled, Settled::Yes, "a delivery of a living connection is settled");
}

pub(super) async fn ack(delivery: Delivery) {
    settle(delivery, Settlement::Ack).await;
}

pub(super) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.message.body).into_owned()
}

/// A consumer whose deliveries come soon or fail the case.
pub(super) struct Inbox(pub(super) Box<dyn Consumer>);

impl Inbox {
    pub(super) async fn open(connection: &dyn Connection, queue: &QueuePlan, room: u16) -> Self {
        let consumer = soon("starting to consume", connection.consume(queue, room)).await;
        Self(consumer.expect("the queue is consumed"))
    }

    /// The next delivery.
    pub(super) async fn next(&mut self) -> Delivery {
        let next = soon("a delivery", self.0.next()).await;
        next.expect("the consumer goes on").expect("the consumer is well")
    }

    /// The next deliveries, all unsettled.
    pub(super) async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        while taken.len() < count {
            taken.push(self.next().await);
        }
        taken
    }

    /// Acknowledges the next delivery, and returns its text.
    pub(super) async fn read(&mut self) -> String {
        let delivery = self.next().await;
        let text = text(&delivery);
        ack(delivery).await;
        text
    }

    /// Acknowledges everything up to a message with this text, and returns the texts before it.
    pub(super) async fn read_until(&mut self, last: &str) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            match self.read().await {
                text if text == last => return texts,
                text => texts.push(text),
            }
        }
    }

    /// Nothing comes for this long. Only for what no later message can show.
    pub(super) async fn nothing_for(&mut self, time: Duration) {
        if let Ok(next) = tokio::time::timeout(time, self.0.next()).await {
            panic!("nothing is to come for {time:?}, and there is {next:?}");
        }
    }

    /// The consumer ends.
    pub(super) async fn ends(&mut self) {
        let next = soon("the consumer's end", self.0.next()).await;
        assert!(next.is_none(), "a consumer that was stopped ends, and there is {next:?}");
    }
}
