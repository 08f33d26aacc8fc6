//! Consuming with a typed handler, each message acknowledged on its own terms.

use std::time::Duration;

use lapin::options::BasicAckOptions;
use mmate_core::{Envelope, SubscriptionBuilder};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{PREFETCH, goal};
use crate::Result;
use crate::by_hand::{Consumer, Source, ack};
use crate::contest::{Case, Contender};
use crate::figures::{ALLOCATIONS, CPU, RATE, Sample};
use crate::goal::{Bound, Compare};
use crate::message::Order;
use crate::progress::Progress;
use crate::queue::Queue;
use crate::servers::Servers;
use crate::service;

const MESSAGES: u64 = 100_000;

const WRITTEN: &str = "lapin, acks written, not awaited";
const DECODED: &str = "lapin, acks written, typed";
const AWAITED: &str = "lapin, each ack awaited";
const AWAITED_BY_TASKS: &str = "lapin, 64 tasks that each await their ack";
const CHANNELS: &str = "lapin, typed, 4 channels, acked together per 100";
const MULTIPLE: &str = "lapin, typed, acked together per 100";
pub(crate) const MMATE: &str = "mmate, typed handler";

pub(crate) fn case() -> Case {
    Case {
        name: "P1",
        curve: None,
        title: "a typed handler, each message acknowledged on its own terms",
        contenders: vec![
            Contender::new(WRITTEN, |servers| {
                bare(servers, Way { typed: false, acks: Acks::Written }, PREFETCH)
            }),
            Contender::new(MMATE, |servers| mmate(servers, PREFETCH)),
            Contender::new(DECODED, |servers| typed(servers, PREFETCH)),
            Contender::new(MULTIPLE, |servers| {
                bare(servers, Way { typed: true, acks: Acks::Together }, PREFETCH)
            }),
            Contender::new(CHANNELS, |servers| channels(servers, 4)),
            Contender::new(AWAITED_BY_TASKS, |servers| tasks(servers, 64)),
            Contender::new(AWAITED, |servers| {
                bare(servers, Way { typed: true, acks: Acks::Awaited }, PREFETCH)
            }),
        ],
        goals: vec![
            goal(
                "P1",
                "mmate beside lapin that decodes nothing",
                MMATE,
                &[WRITTEN],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(0.95),
            ),
            goal(
                "P1",
                "mmate beside lapin that decodes as well",
                MMATE,
                &[DECODED],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(0.95),
            ),
            goal(
                "P1",
                "mmate beside the loop that most write",
                MMATE,
                &[AWAITED],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(3.5),
            ),
            goal(
                "P13",
                "CPU above lapin that decodes as well",
                MMATE,
                &[DECODED],
                CPU,
                Compare::Difference,
                Bound::AtMost(1.5),
            ),
            goal(
                "P13",
                "allocations above lapin that decodes as well",
                MMATE,
                &[DECODED],
                ALLOCATIONS,
                Compare::Difference,
                Bound::AtMost(12.0),
            ),
        ],
    }
}

#[derive(Debug, Clone, Copy)]
struct Way {
    typed: bool,
    acks: Acks,
}

#[derive(Debug, Clone, Copy)]
enum Acks {
    Written,
    Together,
    Awaited,
}

/// What is nearest to a typed handler of mmate.
pub(super) async fn typed(servers: Servers, prefetch: u16) -> Result<Sample> {
    bare(servers, Way { typed: true, acks: Acks::Written }, prefetch).await
}

/// A loop over lapin's stream.
async fn bare(servers: Servers, way: Way, prefetch: u16) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let mut consumer = Consumer::with_prefetch(queue, prefetch).await?;
    let progress = Progress::new(messages);
    let mut since_ack = 0;
    while !progress.is_complete() {
        let delivery = consumer.next().await?;
        let tag = delivery.delivery_tag;
        if way.typed {
            let order: Order = Envelope::from_json(delivery.data)?.payload()?;
            std::hint::black_box(order);
        }
        progress.one();
        match way.acks {
            Acks::Awaited => consumer.channel.basic_ack(tag, BasicAckOptions::default()).await?,
            Acks::Written => ack(&consumer.channel, tag, false)?,
            Acks::Together => {
                since_ack += 1;
                if since_ack == 100 || progress.is_complete() {
                    since_ack = 0;
                    ack(&consumer.channel, tag, true)?;
                }
            }
        }
    }
    let sample = progress.finished().await?;
    consumer.used_up().await?;
    Ok(sample)
}

/// So many tasks that share a consumer, and wait until their acknowledgement is written.
async fn tasks(servers: Servers, count: u64) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let consumer = Consumer::of(queue).await?;
    let progress = Progress::new(messages);
    let mut running: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..count {
        let (mut source, progress) = (consumer.source(), progress.clone());
        running.spawn(async move {
            loop {
                let delivery = source.next().await?;
                let order: Order = Envelope::from_json(delivery.data)?.payload()?;
                std::hint::black_box(order);
                let options = BasicAckOptions::default();
                source.channel.basic_ack(delivery.delivery_tag, options).await?;
                progress.one();
            }
        });
    }
    let sample = progress.finished().await?;
    running.shutdown().await;
    consumer.used_up().await?;
    Ok(sample)
}

/// So many consumers of one queue, each on a channel of its own, which acknowledge together.
async fn channels(servers: Servers, count: u64) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let progress = Progress::new(messages);
    let mut running: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..count {
        let (mut source, progress) = (Source::of(&queue, PREFETCH).await?, progress.clone());
        running.spawn(async move {
            let mut since_ack = 0;
            while !progress.is_complete() {
                // When no more comes, others may have had the last one.
                let Ok(next) = timeout(MOMENT, source.next()).await else { continue };
                let delivery = next?;
                let order: Order = Envelope::from_json(delivery.data)?.payload()?;
                std::hint::black_box(order);
                progress.one();
                since_ack += 1;
                if since_ack == 100 {
                    since_ack = 0;
                    ack(&source.channel, delivery.delivery_tag, true)?;
                }
            }
            // All that is left.
            ack(&source.channel, 0, true)?;
            source.end().await
        });
    }
    let sample = progress.finished().await?;
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    queue.used_up().await?;
    Ok(sample)
}

const MOMENT: Duration = Duration::from_millis(20);

pub(super) async fn mmate(servers: Servers, prefetch: u16) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let (concurrency, prefetch) = (usize::from(prefetch.min(16)), prefetch.try_into()?);
    let finish = |s: SubscriptionBuilder| {
        s.prefetch(prefetch).concurrency(concurrency).handler(service::handle)
    };
    service::measured(&servers, queue, messages, finish).await
}
