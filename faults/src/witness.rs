//! A client that is not ours, to ask the broker with.

use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use crate::measure::within;

/// Asks the broker directly, without proxy and without mmate.
pub struct Witness {
    connection: Connection,
}

impl Witness {
    /// Connects.
    ///
    /// # Panics
    /// If that fails, as does every call here.
    pub async fn at(url: &str) -> Self {
        let properties = ConnectionProperties::default();
        Self { connection: Connection::connect(url, properties).await.unwrap() }
    }

    /// A new channel. Its number may still be that of one which the broker is closing, and its error is told once more
    /// then.
    async fn channel(&self) -> Channel {
        let opening = async || self.connection.create_channel().await.ok();
        within(Duration::from_secs(10), "there is a channel", opening).await
    }

    /// How many messages are ready in a queue; none if it is not there.
    #[expect(clippy::missing_panics_doc, reason = "as told above")]
    pub async fn ready(&self, queue: &str) -> u32 {
        let channel = self.channel().await;
        let look = QueueDeclareOptions::default().passive();
        // A channel that asks for what is not there is closed by the broker.
        let Ok(queue) = channel.queue_declare(queue.into(), look, FieldTable::default()).await
        else {
            return 0;
        };
        channel.close(200, "".into()).await.unwrap();
        queue.message_count()
    }

    /// Takes all messages from a queue, and returns their ids.
    pub async fn take_all(&self, queue: &str) -> Vec<String> {
        let channel = self.channel().await;
        let mut ids = Vec::new();
        while let Ok(Some(message)) =
            channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await
        {
            let id = message.delivery.properties.message_id();
            ids.push(id.as_ref().map(ToString::to_string).unwrap_or_default());
        }
        ids
    }

    /// Deletes a queue.
    #[expect(clippy::missing_panics_doc, reason = "as told above")]
    pub async fn delete(&self, queue: &str) {
        let channel = self.channel().await;
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    /// Publishes a body as it is to a queue, under this id, and waits until the broker has it.
    #[expect(clippy::missing_panics_doc, reason = "as told above")]
    pub async fn publish(&self, queue: &str, id: &str, body: &[u8]) {
        let channel = self.channel().await;
        channel.confirm_select(Default::default()).await.unwrap();
        let properties =
            BasicProperties::default().with_message_id(id.into()).with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), queue.into(), options, body, properties).await;
        sent.unwrap().await.unwrap();
        channel.close(200, "".into()).await.unwrap();
    }
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Witness")
    }
}
