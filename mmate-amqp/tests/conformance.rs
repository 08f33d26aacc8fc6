//! The conformance suite over RabbitMQ.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "rabbitmq/proxy.rs"]
mod proxy;

use std::time::Duration;

use lapin::ConnectionProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use mmate_amqp::Amqp;
use mmate_core::conformance::Harness;
use mmate_test_support::amqp_url;

use crate::proxy::Proxy;

/// The shared broker, by way of a proxy of the case's own, so that a cut cuts nobody else.
struct OnRabbitMq {
    proxy: Proxy,
    /// Of another client, to ask the broker with.
    asking: lapin::Connection,
}

impl OnRabbitMq {
    async fn start() -> Self {
        let properties = ConnectionProperties::default();
        Self {
            proxy: Proxy::before(&amqp_url()).await,
            asking: lapin::Connection::connect(&amqp_url(), properties).await.unwrap(),
        }
    }
}

#[async_trait::async_trait]
impl Harness for OnRabbitMq {
    type Transport = Amqp;

    fn transport(&self) -> Amqp {
        Amqp::new(self.proxy.url())
            .reconnect_backoff(Duration::from_millis(20), Duration::from_millis(200))
    }

    async fn cut(&self) {
        self.proxy.cut();
    }

    async fn ready(&self, queue: &str) -> usize {
        let channel = self.asking.create_channel().await.unwrap();
        let look = QueueDeclareOptions::default().passive();
        match channel.queue_declare(queue.into(), look, FieldTable::default()).await {
            Ok(queue) => queue.message_count() as usize,
            Err(_) => 0,
        }
    }
}

mmate_core::transport_conformance!(OnRabbitMq::start().await, flavor = "multi_thread");
