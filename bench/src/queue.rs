//! A queue on the broker, filled for a run.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};

use crate::Result;
use crate::message::message;

/// A quorum queue with messages in it, and a connection to its broker.
pub(crate) struct Queue {
    pub(crate) name: String,
    pub(crate) connection: Connection,
}

impl Queue {
    /// A new queue with so many messages, all confirmed.
    pub(crate) async fn filled(amqp: &str, messages: u64) -> Result<Self> {
        let queue = Self::empty(amqp).await?;
        queue.fill(&queue.name, messages).await?;
        Ok(queue)
    }

    pub(crate) async fn empty(amqp: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self::named(amqp, format!("bench.{}.{number}", std::process::id())).await
    }

    pub(crate) async fn named(amqp: &str, name: String) -> Result<Self> {
        let connection = Connection::connect(amqp, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.as_str().into(), durable, arguments).await?;
        channel.close(200, "done".into()).await?;
        Ok(Self { name, connection })
    }

    /// Publishes the messages of a run, whose ids begin with its name.
    pub(crate) async fn fill(&self, run: &str, messages: u64) -> Result<()> {
        self.fill_with(messages, |number| message(run, number)).await
    }

    /// Publishes so many messages.
    pub(crate) async fn fill_with(
        &self,
        messages: u64,
        message: impl Fn(u64) -> Result<(BasicProperties, Vec<u8>)>,
    ) -> Result<()> {
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut confirms = FuturesUnordered::new();
        for number in 0..messages {
            let (properties, body) = message(number)?;
            let publishing = channel.basic_publish(
                "".into(),
                self.name.as_str().into(),
                BasicPublishOptions::default(),
                &body,
                properties,
            );
            confirms.push(publishing.await?);
            while confirms.len() >= 1000 {
                confirmed(confirms.next().await)?;
            }
        }
        while !confirms.is_empty() {
            confirmed(confirms.next().await)?;
        }
        channel.close(200, "done".into()).await?;
        Ok(())
    }

    pub(crate) async fn channel(&self, prefetch: u16) -> Result<Channel> {
        let channel = self.connection.create_channel().await?;
        channel.basic_qos(prefetch, lapin::options::BasicQosOptions::default()).await?;
        Ok(channel)
    }

    /// Deletes it, with so many messages in it.
    pub(crate) async fn deleted_with(self, messages: u64) -> Result<()> {
        let channel = self.connection.create_channel().await?;
        let name = self.name.as_str();
        let had = channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?;
        if u64::from(had) != messages {
            return Err(format!("{had} of {messages} messages came to {name}").into());
        }
        self.connection.close(200, "done".into()).await?;
        Ok(())
    }

    /// Deletes it. All that was in it must be acknowledged by then: a run that loses
    /// acknowledgements is no result.
    pub(crate) async fn used_up(self) -> Result<()> {
        let channel = self.connection.create_channel().await?;
        let begin = Instant::now();
        loop {
            let look = QueueDeclareOptions::default().passive();
            let name = self.name.as_str();
            let declared = channel.queue_declare(name.into(), look, FieldTable::default()).await?;
            let (ready, consumers) = (declared.message_count(), declared.consumer_count());
            if consumers == 0 {
                if ready > 0 {
                    return Err(format!("{ready} messages came back to {name}").into());
                }
                channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?;
                self.connection.close(200, "done".into()).await?;
                return Ok(());
            }
            if begin.elapsed() > Duration::from_secs(20) {
                return Err(format!("{consumers} consumers stay on {name}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether the broker has it, as the answer to a publish says.
pub(crate) fn confirmed(confirm: Option<lapin::Result<Confirmation>>) -> Result<()> {
    match confirm {
        Some(Ok(Confirmation::Ack(None))) | None => Ok(()),
        Some(Ok(other)) => Err(format!("the broker answered {other:?}").into()),
        Some(Err(error)) => Err(error.into()),
    }
}
