//! Publishing persistent messages, each confirmed.

use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};
use mmate_amqp::Amqp;
use mmate_core::{HandlerError, Outgoing, Publisher, Service, Subscription};

use super::goal;
use crate::Result;
use crate::contest::{Case, Contender};
use crate::figures::{RATE, Sample, Used};
use crate::goal::{Bound, Compare};
use crate::message::{Order, message, order};
use crate::queue::{Queue, confirmed};
use crate::servers::Servers;

const MESSAGES: u64 = 100_000;
/// What waits for each takes so much longer that fewer do.
const MESSAGES_ONE_BY_ONE: u64 = 5_000;
const IN_FLIGHT: usize = 1000;
const EXCHANGE: &str = "mmate.events";

const LAPIN: &str = "lapin, 1,000 in flight";
const LAPIN_ONE_BY_ONE: &str = "lapin, each confirm awaited";
const MMATE: &str = "mmate, 1,000 in flight";
const MMATE_TOGETHER: &str = "mmate, publish_all of 1,000";

pub(crate) fn case() -> Case {
    Case {
        name: "P8",
        curve: None,
        title: "persistent messages to a quorum queue, each confirmed",
        contenders: vec![
            Contender::new(LAPIN, |servers| by_hand(servers, MESSAGES, IN_FLIGHT)),
            Contender::new(MMATE, |servers| mmate(servers, false)),
            Contender::new(MMATE_TOGETHER, |servers| mmate(servers, true)),
            Contender::new(LAPIN_ONE_BY_ONE, |servers| by_hand(servers, MESSAGES_ONE_BY_ONE, 1)),
        ],
        goals: vec![
            goal(
                "P8",
                "beside lapin with as many in flight",
                MMATE,
                &[LAPIN],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(0.95),
            ),
            goal(
                "P8",
                "beside lapin that awaits each confirm",
                MMATE,
                &[LAPIN_ONE_BY_ONE],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(20.0),
            ),
        ],
    }
}

/// A queue that a topic leads to, which is also its name.
async fn bound(servers: &Servers) -> Result<(Queue, Channel)> {
    let queue = Queue::empty(servers.amqp()?).await?;
    let channel = queue.connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default;
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, none()).await?;
    let (name, options) = (queue.name.as_str(), QueueBindOptions::default());
    channel.queue_bind(name.into(), EXCHANGE.into(), name.into(), options, none()).await?;
    Ok((queue, channel))
}

async fn by_hand(servers: Servers, messages: u64, in_flight: usize) -> Result<Sample> {
    let messages = servers.messages(messages);
    let (queue, channel) = bound(&servers).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut confirms = FuturesUnordered::new();
    let begin = Used::now();
    for number in 0..messages {
        let (properties, body) = message(&queue.name, number)?;
        let publishing = channel.basic_publish(
            EXCHANGE.into(),
            queue.name.as_str().into(),
            BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() },
            &body,
            properties,
        );
        confirms.push(publishing.await?);
        while confirms.len() >= in_flight {
            confirmed(confirms.next().await)?;
        }
    }
    while !confirms.is_empty() {
        confirmed(confirms.next().await)?;
    }
    let sample = Used::now().since(begin, messages);
    queue.deleted_with(messages).await?;
    Ok(sample)
}

async fn mmate(servers: Servers, together: bool) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let (queue, _channel) = bound(&servers).await?;
    // A service has a subscription; nothing comes to this one.
    let idle = Subscription::per_instance("bench-idle", ["bench-idle.none.here"]).handler(ignore);
    let running = Service::new("bench").subscribe(idle).start(Amqp::new(servers.amqp()?)).await?;
    let publisher = running.publisher();
    let begin = Used::now();
    match together {
        true => publish_together(publisher, &queue.name, messages).await?,
        false => publish(publisher, &queue.name, messages).await?,
    }
    let sample = Used::now().since(begin, messages);
    running.stop().await?;
    queue.deleted_with(messages).await?;
    Ok(sample)
}

async fn ignore() -> Result<(), HandlerError> {
    Ok(())
}

fn event(queue: &str, number: u64) -> Outgoing {
    // What the other contender's has too, so that the bodies are about as long.
    let order = Order { note: "x".repeat(60), ..order(number) };
    Outgoing::event(queue, "OrderCreated", &order)
}

async fn publish(publisher: &Publisher, queue: &str, messages: u64) -> Result<()> {
    let mut flights = FuturesUnordered::new();
    for number in 0..messages {
        flights.push(publisher.publish(event(queue, number)));
        while flights.len() >= IN_FLIGHT {
            flights.next().await.transpose()?;
        }
    }
    while flights.next().await.transpose()?.is_some() {}
    Ok(())
}

async fn publish_together(publisher: &Publisher, queue: &str, messages: u64) -> Result<()> {
    let mut number = 0;
    while number < messages {
        let end = messages.min(number + IN_FLIGHT as u64);
        let published = publisher.publish_all((number..end).map(|n| event(queue, n))).await;
        published.into_iter().collect::<Result<Vec<_>, _>>()?;
        number = end;
    }
    Ok(())
}
