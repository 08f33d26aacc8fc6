//! Consuming with a typed handler, each message acknowledged on its own terms.

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use mmate_core::Envelope;

use super::{PREFETCH, goal};
use crate::Result;
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
const MULTIPLE: &str = "lapin, typed, acked together per 100";
pub(crate) const MMATE: &str = "mmate, typed handler";

pub(crate) fn case() -> Case {
    Case {
        name: "P1",
        title: "a typed handler, each message acknowledged on its own terms",
        contenders: vec![
            Contender::new(WRITTEN, |servers| {
                bare(servers, Way { typed: false, acks: Acks::Written })
            }),
            Contender::new(MMATE, mmate),
            Contender::new(DECODED, |servers| {
                bare(servers, Way { typed: true, acks: Acks::Written })
            }),
            Contender::new(MULTIPLE, |servers| {
                bare(servers, Way { typed: true, acks: Acks::Together })
            }),
            Contender::new(AWAITED, |servers| {
                bare(servers, Way { typed: true, acks: Acks::Awaited })
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

/// A loop over lapin's stream.
async fn bare(servers: Servers, way: Way) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let channel = queue.channel(PREFETCH).await?;
    let name = queue.name.as_str();
    let consuming = channel.basic_consume(
        name.into(),
        "bench".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut deliveries = consuming.await?;
    let progress = Progress::new(messages);
    let mut since_ack = 0;
    while !progress.is_complete() {
        let delivery = deliveries.next().await.ok_or("the consumer ended")??;
        let tag = delivery.delivery_tag;
        if way.typed {
            let order: Order = Envelope::from_json(delivery.data)?.payload()?;
            std::hint::black_box(order);
        }
        progress.one();
        match way.acks {
            Acks::Awaited => channel.basic_ack(tag, BasicAckOptions::default()).await?,
            // lapin has it at the first poll; the future would tell when it is written.
            Acks::Written => {
                let ack = channel.basic_ack(tag, BasicAckOptions::default());
                futures_util::FutureExt::now_or_never(ack).transpose()?;
            }
            Acks::Together => {
                since_ack += 1;
                if since_ack == 100 || progress.is_complete() {
                    since_ack = 0;
                    let ack = channel.basic_ack(tag, BasicAckOptions { multiple: true });
                    futures_util::FutureExt::now_or_never(ack).transpose()?;
                }
            }
        }
    }
    let sample = progress.finished().await?;
    channel.basic_cancel("bench".into(), BasicCancelOptions::default()).await?;
    channel.close(200, "done".into()).await?;
    queue.used_up().await?;
    Ok(sample)
}

async fn mmate(servers: Servers) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    service::measured(&servers, queue, messages, service::plain).await
}
