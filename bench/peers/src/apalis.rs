//! A worker on an `AmqpBackend`. Its messages are in a format of its own.

use ::apalis::prelude::*;
use apalis_amqp::AmqpBackend;
use apalis_amqp::utils::Config;
use lapin::options::{BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties};

use crate::order::Event;
use crate::{PREFETCH, QUEUE, tally};

async fn handle(event: Event) {
    std::hint::black_box(event.payload);
    tally::one();
}

pub async fn consume(url: &str) -> crate::Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(QUEUE, durable, arguments).await?;
    let backend = AmqpBackend::<Event>::new_with_config(channel, queue, Config::new(QUEUE));
    let worker = WorkerBuilder::new("peer").backend(backend).build_fn(handle);
    Ok(Monitor::new().register(worker).run().await?)
}
