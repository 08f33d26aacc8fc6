//! Consuming with duplicates suppressed, by records outside of a transaction.

use mmate_core::{Scope, SubscriptionBuilder};
use mmate_idempotency::{MemoryStore, RedisStore, Tracked};

use super::{fresh, goal};
use crate::Result;
use crate::by_hand::{Consumer, ack};
use crate::contest::{Case, Contender};
use crate::figures::{Figure, RATE, Sample};
use crate::goal::{Bound, Compare};
use crate::message::Order;
use crate::progress::Progress;
use crate::queue::Queue;
use crate::servers::Servers;
use crate::service;

const MESSAGES: u64 = 100_000;
const PLAIN: &str = "mmate, no idempotency";
const MEMORY: &str = "mmate, Tracked in memory";
const REDIS: &str = "mmate, Tracked in Redis";
const SET_NX: &str = "lapin and SET NX, one after the other";
const FIRST: &str = "mmate, no idempotency, counted alike";
const AGAIN: &str = "mmate, duplicates of what was lately done";
const AGAIN_REDIS: &str = "mmate, the same with records in Redis";

const CPU_OF_REDIS: Figure = "µs of Redis's CPU/message";

pub(crate) fn memory() -> Case {
    Case {
        name: "P2",
        curve: None,
        title: "records in memory",
        contenders: vec![
            Contender::new(PLAIN, plain),
            Contender::new(MEMORY, |servers| async move {
                let messages = servers.messages(MESSAGES);
                let queue = Queue::filled(servers.amqp()?, messages).await?;
                let tracked = Tracked::new(MemoryStore::new().capacity(1_000_000));
                let finish =
                    |s: SubscriptionBuilder| s.idempotent(tracked).handler(service::handle);
                service::measured(&servers, queue, messages, finish).await
            }),
        ],
        goals: vec![goal(
            "P2",
            "beside no idempotency",
            MEMORY,
            &[PLAIN],
            RATE,
            Compare::Ratio,
            Bound::AtLeast(0.95),
        )],
    }
}

pub(crate) fn redis() -> Case {
    Case {
        name: "P3",
        curve: None,
        title: "records in Redis, claimed and completed",
        contenders: vec![
            Contender::new(PLAIN, plain),
            Contender::new(REDIS, |servers| in_redis(servers, 512)),
            Contender::new(SET_NX, set_nx),
        ],
        goals: vec![
            goal(
                "P3",
                "beside no idempotency",
                REDIS,
                &[PLAIN],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(0.85),
            ),
            goal(
                "P3",
                "beside SET NX one after the other",
                REDIS,
                &[SET_NX],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(5.0),
            ),
        ],
    }
}

/// With so many messages at work at once.
pub(super) async fn in_redis(servers: Servers, concurrency: usize) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let store = RedisStore::connect(servers.redis()?).await?.prefix(&queue.name)?;
    let finish = |s: SubscriptionBuilder| {
        s.idempotent(Tracked::new(store)).concurrency(concurrency).handler(service::handle)
    };
    let before = cpu_of_redis(&servers).await?;
    let sample = service::measured(&servers, queue, messages, finish).await?;
    #[expect(clippy::cast_precision_loss, reason = "a number of messages")]
    let each = (cpu_of_redis(&servers).await? - before) * 1e6 / messages as f64;
    Ok(sample.with(CPU_OF_REDIS, each))
}

/// What Redis has used up to now, in seconds.
async fn cpu_of_redis(servers: &Servers) -> Result<f64> {
    let client = redis::Client::open(servers.redis()?)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let told: String = redis::cmd("INFO").arg("cpu").query_async(&mut connection).await?;
    let of = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
    let used: Option<Vec<f64>> = ["used_cpu_user:", "used_cpu_sys:"].into_iter().map(of).collect();
    Ok(used.ok_or("Redis does not tell its CPU")?.iter().sum())
}

pub(crate) fn duplicates() -> Case {
    Case {
        name: "P7",
        curve: None,
        title: "duplicates of what this process has lately done",
        contenders: vec![
            Contender::new(FIRST, first),
            Contender::new(AGAIN, |servers| async move {
                again(servers, Tracked::new(MemoryStore::new().capacity(1_000_000))).await
            }),
            Contender::new(AGAIN_REDIS, |servers| async move {
                let prefix = format!("again-{}", fresh());
                let store = RedisStore::connect(servers.redis()?).await?.prefix(prefix)?;
                again(servers, Tracked::new(store)).await
            }),
        ],
        goals: vec![
            goal(
                "P7",
                "records in memory, beside first deliveries",
                AGAIN,
                &[FIRST],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(0.95),
            ),
            goal(
                "P7",
                "records in Redis, beside first deliveries",
                AGAIN_REDIS,
                &[FIRST],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(0.95),
            ),
        ],
    }
}

async fn plain(servers: Servers) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    service::measured(&servers, queue, messages, service::plain).await
}

/// Handles each message, and then all of them again.
/// With the same middleware as the copies, which counts them.
async fn first(servers: Servers) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let counting = service::Counting(Progress::new(messages));
    let finish = |s: SubscriptionBuilder| s.middleware(counting).handler(service::handle);
    service::measured(&servers, queue, messages, finish).await
}

async fn again(servers: Servers, tracked: Tracked) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    for is_again in [false, true] {
        let queue = Queue::empty(servers.amqp()?).await?;
        queue.fill("again", messages).await?;
        let progress = Progress::new(messages);
        let counting = service::Counting(progress.clone());
        let tracked = tracked.clone();
        // Each round has a queue of its own, and all have their records in the service's scope.
        let finish = |subscription: SubscriptionBuilder| {
            let subscription = subscription.scope(Scope::Service).concurrency(512);
            match is_again {
                false => subscription.idempotent(tracked).handler(service::handle),
                true => {
                    subscription.middleware(counting).idempotent(tracked).handler(service::handle)
                }
            }
        };
        let sample =
            service::counted(&servers, queue, messages, is_again.then_some(progress), finish)
                .await?;
        if is_again {
            return Ok(sample);
        }
    }
    Err("there are two rounds".into())
}

/// What is often written: a mark is set, and if it was not there the message is handled.
async fn set_nx(servers: Servers) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let client = redis::Client::open(servers.redis()?)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut consumer = Consumer::of(queue).await?;
    let progress = Progress::new(messages);
    while !progress.is_complete() {
        let delivery = consumer.next().await?;
        let id = delivery.properties.message_id().as_ref().ok_or("a message without an id")?;
        let key = format!("{}:{id}", consumer.queue.name);
        let is_first: Option<String> = redis::cmd("SET")
            .arg(&key)
            .arg(1)
            .arg("NX")
            .arg("EX")
            .arg(86_400)
            .query_async(&mut connection)
            .await?;
        if is_first.is_some() {
            let order: Order = mmate_core::Envelope::from_json(delivery.data)?.payload()?;
            std::hint::black_box(order);
        }
        ack(&consumer.channel, delivery.delivery_tag, false)?;
        progress.one();
    }
    let sample = progress.finished().await?;
    consumer.used_up().await?;
    Ok(sample)
}
