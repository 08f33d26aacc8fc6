//! How long a message takes from being published to its handler.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use mmate_amqp::Amqp;
use mmate_core::transport::Declare;
use mmate_core::{Envelope, HandlerError, Json, MessageId, Service, State, Subscription};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::{PREFETCH, goal};
use crate::Result;
use crate::by_hand::{Consumer, ack};
use crate::contest::{Case, Contender};
use crate::figures::{Figure, Sample};
use crate::goal::{Bound, Compare};
use crate::queue::Queue;
use crate::servers::Servers;

/// How long a run publishes.
const SECONDS: u64 = 10;
const RATE: u32 = 1_000;

pub(super) const MIDDLE: Figure = "µs, p50";
pub(super) const HIGH: Figure = "µs, p99";
const LAPIN: &str = "lapin, typed, acks written";
const MMATE: &str = "mmate, typed handler";

pub(crate) fn case() -> Case {
    let limit = |figure| {
        let what = "beside lapin that decodes as well";
        goal("P9", what, MMATE, &[LAPIN], figure, Compare::Ratio, Bound::AtMost(1.1))
    };
    Case {
        name: "P9",
        curve: None,
        title: "from publishing to the handler, at 1,000 messages a second",
        contenders: vec![
            Contender::new(LAPIN, |servers| by_hand(servers, RATE)),
            Contender::new(MMATE, |servers| mmate(servers, RATE)),
        ],
        goals: vec![limit(MIDDLE), limit(HIGH)],
    }
}

/// Both ends are in this process, so one clock serves both.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now() -> u64 {
    u64::try_from(BEGIN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug, Serialize, Deserialize)]
struct Stamped {
    /// In nanoseconds.
    sent: u64,
    note: String,
}

/// What the messages of a run took.
#[derive(Clone)]
struct Times(Arc<Inner>);

struct Inner {
    expected: usize,
    taken: Mutex<Vec<u64>>,
    ended: Notify,
}

impl Times {
    fn new(expected: u64) -> Result<Self> {
        let expected = usize::try_from(expected)?;
        let taken = Mutex::new(Vec::with_capacity(expected));
        Ok(Self(Arc::new(Inner { expected, taken, ended: Notify::new() })))
    }

    fn came(&self, stamped: &Stamped) {
        let took = now() - stamped.sent;
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.push(took);
        if taken.len() == self.0.expected {
            self.0.ended.notify_one();
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "some microseconds")]
    async fn sample(&self) -> Result<Sample> {
        tokio::time::timeout(Duration::from_secs(120), self.0.ended.notified()).await?;
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        taken.sort_unstable();
        let at = |percent: usize| taken[(taken.len() - 1) * percent / 100] as f64 / 1000.0;
        Ok(Sample::default().with(MIDDLE, at(50)).with(HIGH, at(99)))
    }
}

/// Publishes so many a second, on a connection of its own; more than 1,000 in a gust each millisecond.
async fn publish(amqp: String, queue: String, messages: u64, rate: u32) -> Result<()> {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&amqp, properties).await?;
    let channel = connection.create_channel().await?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..messages {
        pace.tick().await;
        let id = MessageId::parse(format!("{queue}-{number:08}"))?;
        let stamped = Stamped { sent: now(), note: "x".repeat(100) };
        let body = Envelope::new(id.clone(), "Stamped", &stamped)?.to_json();
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(id.as_str().into())
            .with_type("Stamped".into());
        let (options, queue) = (BasicPublishOptions::default(), queue.as_str());
        channel.basic_publish("".into(), queue.into(), options, &body, properties).await?;
    }
    channel.close(200, "done".into()).await?;
    connection.close(200, "done".into()).await?;
    Ok(())
}

pub(super) async fn by_hand(servers: Servers, rate: u32) -> Result<Sample> {
    let messages = servers.messages(SECONDS * u64::from(rate));
    let queue = Queue::empty(servers.amqp()?).await?;
    let mut consumer = Consumer::of(queue).await?;
    let times = Times::new(messages)?;
    let (amqp, name) = (servers.amqp()?.to_owned(), consumer.queue.name.clone());
    let publishing = tokio::spawn(publish(amqp, name, messages, rate));
    for _ in 0..messages {
        let delivery = consumer.next().await?;
        let stamped: Stamped = Envelope::from_json(delivery.data)?.payload()?;
        times.came(&stamped);
        ack(&consumer.channel, delivery.delivery_tag, false)?;
    }
    let sample = times.sample().await?;
    publishing.await??;
    consumer.used_up().await?;
    Ok(sample)
}

async fn handle(
    Json(stamped): Json<Stamped>,
    State(times): State<Times>,
) -> Result<(), HandlerError> {
    times.came(&stamped);
    Ok(())
}

pub(super) async fn mmate(servers: Servers, rate: u32) -> Result<Sample> {
    let messages = servers.messages(SECONDS * u64::from(rate));
    let queue = Queue::empty(servers.amqp()?).await?;
    let times = Times::new(messages)?;
    let subscription = Subscription::shared(queue.name.as_str())
        .declare(Declare::LeaveAlone)
        .prefetch(PREFETCH.try_into()?)
        .handler(handle);
    let running = Service::new("bench")
        .state(times.clone())
        .subscribe(subscription)
        .start(Amqp::new(servers.amqp()?))
        .await?;
    let (amqp, name) = (servers.amqp()?.to_owned(), queue.name.clone());
    let publishing = tokio::spawn(publish(amqp, name, messages, rate));
    let sample = times.sample().await?;
    publishing.await??;
    running.stop().await?;
    queue.used_up().await?;
    Ok(sample)
}
