//! `AsyncConsumer`, with manual acknowledgements.

use ::amqprs::channel::{BasicAckArguments, BasicConsumeArguments, BasicQosArguments, Channel};
use ::amqprs::connection::{Connection, OpenConnectionArguments};
use ::amqprs::consumer::AsyncConsumer;
use ::amqprs::{BasicProperties, Deliver};
use async_trait::async_trait;

use crate::order::Event;
use crate::{PREFETCH, QUEUE, Result, tally};

struct Orders;

#[async_trait]
impl AsyncConsumer for Orders {
    async fn consume(
        &mut self,
        channel: &Channel,
        deliver: Deliver,
        _: BasicProperties,
        content: Vec<u8>,
    ) {
        let event: Event = serde_json::from_slice(&content).expect("it is an order");
        std::hint::black_box(event.payload);
        tally::one();
        let acked = channel.basic_ack(BasicAckArguments::new(deliver.delivery_tag(), false)).await;
        acked.expect("it is acknowledged");
    }
}

pub async fn consume(url: &str) -> Result<()> {
    // It takes `%2f` for a name; without one it uses the default, which is the same.
    let arguments: OpenConnectionArguments = url.trim_end_matches("/%2f").try_into()?;
    let connection = Connection::open(&arguments).await?;
    let channel = connection.open_channel(None).await?;
    channel.basic_qos(BasicQosArguments::new(0, PREFETCH, false)).await?;
    let arguments = BasicConsumeArguments::new(QUEUE, "peer").manual_ack(true).finish();
    channel.basic_consume(Orders, arguments).await?;
    std::future::pending().await
}
