//! What the tests have in common.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ConnectionProperties};
use mmate_amqp::Amqp;
use mmate_core::DeadLetter;
use mmate_core::DeadReason;
use mmate_core::message::Message;
use mmate_core::topic::{Topic, TopicPattern};
use mmate_core::transport::{
    Connection, Consumer, Delivery, Destination, Publication, QueueMode, QueuePlan, Settled,
    Settlement, Transport,
};
use mmate_test_support::{RabbitMq, amqp_url, unique};

/// Longer than anything takes on a busy machine, shorter than anybody's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The shared broker, with short waits.
pub(crate) fn shared() -> Amqp {
    broker(&amqp_url())
}

pub(crate) fn broker(url: &str) -> Amqp {
    Amqp::new(url).reconnect_backoff(Duration::from_millis(20), Duration::from_millis(500))
}

pub(crate) async fn connect(to: Amqp) -> Box<dyn Connection> {
    to.connect("tests").await.unwrap()
}

/// A broker whose `rabbitmqctl` may be used, but that all tests share.
pub(crate) fn ctl(arguments: &[&str]) -> String {
    with_private(|broker| broker.ctl(arguments).unwrap())
}

pub(crate) fn private_url() -> String {
    with_private(RabbitMq::url)
}

fn with_private<T>(run: impl FnOnce(&RabbitMq) -> T) -> T {
    static BROKER: LazyLock<Mutex<RabbitMq>> =
        LazyLock::new(|| Mutex::new(RabbitMq::start().unwrap()));
    tokio::task::block_in_place(|| run(&BROKER.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// A client that is not ours.
pub(crate) struct Stranger {
    _connection: lapin::Connection,
    pub(crate) channel: Channel,
}

impl Stranger {
    pub(crate) async fn at(url: &str) -> Self {
        let properties = ConnectionProperties::default();
        let connection = lapin::Connection::connect(url, properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        Self { _connection: connection, channel }
    }

    pub(crate) async fn publish(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions::default();
        let sent = self.channel.basic_publish("".into(), queue.into(), options, body, properties);
        sent.await.unwrap().await.unwrap();
    }

    /// Waits for a message in a queue, and takes it.
    pub(crate) async fn get(&self, queue: &str) -> BasicGetMessage {
        let options = BasicGetOptions { no_ack: true };
        until("a message is there", async || {
            self.channel.basic_get(queue.into(), options).await.unwrap()
        })
        .await
    }

    /// How many messages are ready in a queue, or nothing if it is not there.
    pub(crate) async fn ready(&self, queue: &str) -> Option<u32> {
        let channel = self._connection.create_channel().await.unwrap();
        let look = QueueDeclareOptions::default().passive();
        let declared = channel.queue_declare(queue.into(), look, FieldTable::default()).await;
        declared.ok().map(|queue| queue.message_count())
    }

    pub(crate) async fn until_ready(&self, queue: &str, count: u32) {
        let what = format!("{count} messages are ready in {queue}");
        until(&what, async || (self.ready(queue).await == Some(count)).then_some(())).await;
    }
}

/// The headers of a received message, by name, without the one that the broker adds.
pub(crate) fn headers(properties: &BasicProperties) -> BTreeMap<String, AMQPValue> {
    let table = properties.headers().clone().unwrap_or_default();
    let ours = table.into_iter().filter(|(name, _)| name.as_str() != "x-delivery-count");
    ours.map(|(name, value)| (name.to_string(), value.clone())).collect()
}

pub(crate) fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

pub(crate) fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// A durable queue under a name of its own, with a pattern of its own.
pub(crate) fn plan(name: &str) -> QueuePlan {
    plan_as(name, QueueMode::Shared)
}

pub(crate) fn plan_as(name: &str, mode: QueueMode) -> QueuePlan {
    let queue = unique(name);
    let pattern = TopicPattern::new(format!("{queue}.#")).unwrap();
    QueuePlan::new(queue, mode).bind("mmate.events", pattern)
}

/// A message that the plan's pattern matches.
pub(crate) fn event(plan: &QueuePlan, id: &str) -> Publication {
    Publication::new(topic("mmate.events", &format!("{}.created", plan.name)), message(id))
}

pub(crate) fn topic(exchange: &str, topic: &str) -> Destination {
    Destination::Exchange { name: exchange.to_owned(), topic: Topic::new(topic).unwrap() }
}

pub(crate) fn message(id: &str) -> Message {
    let mut message = Message::new(format!("body of {id}"));
    message.properties.message_id = Some(id.to_owned());
    message.properties.persistent = true;
    message
}

pub(crate) fn id_of(delivery: &Delivery) -> String {
    delivery.message.properties.message_id.clone().unwrap_or_default()
}

pub(crate) fn retry(after: Duration) -> Settlement {
    Settlement::Retry { after, error: "the disk is full".to_owned() }
}

pub(crate) fn bury() -> Settlement {
    let letter = DeadLetter::new(DeadReason::Permanent, "no such sku: 4711");
    Settlement::DeadLetter { letter, attempts: 3 }
}

/// The next delivery, which must come.
pub(crate) async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    let next = tokio::time::timeout(PATIENCE, consumer.next()).await;
    next.expect("no delivery came").expect("the consumer ended").expect("the consumer failed")
}

pub(crate) async fn settle(delivery: Delivery, settlement: Settlement) {
    assert_eq!(delivery.settle(settlement).await, Settled::Yes);
}

pub(crate) async fn ack(delivery: Delivery) {
    settle(delivery, Settlement::Ack).await;
}

/// Waits until something holds.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs what blocks a thread, as starting a broker does.
pub(crate) async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Publishes messages with the ids `from..to`, many at a time; all must be stored.
pub(crate) async fn publish_all(
    connection: &Arc<dyn Connection>,
    plan: &QueuePlan,
    ids: std::ops::Range<u32>,
) {
    futures_util::stream::iter(ids)
        .for_each_concurrent(200, |id| async move {
            connection.publish(event(plan, &id.to_string())).await.unwrap();
        })
        .await;
}
