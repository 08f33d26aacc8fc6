//! A transport that misbehaves as real ones do, only more often.

use std::sync::Arc;

use async_trait::async_trait;
use mmate_core::health::{Status, StatusCell};
use mmate_core::message::wire;
use mmate_core::transport::{
    Browser, Connection, Consumer, Delivery, Destination, Limits, Publication, QueuePlan, Settle,
    Settlement,
};
use mmate_core::{MadeQueue, PublishError, Settled, Transport, TransportError};

/// Wraps a transport so that one message in ten is put into its queue a second time, and one
/// acknowledgement in ten does not reach the broker, which shows the message again.
///
/// It asks the real broker to do both, so what the service sees is real.
#[derive(Debug, Clone)]
pub struct Chaos<T>(T);

impl<T> Chaos<T> {
    /// Lets this transport misbehave.
    #[must_use]
    pub fn new(transport: T) -> Self {
        Self(transport)
    }
}

const DUPLICATED: f64 = 0.1;
const ACK_DROPPED: f64 = 0.1;

#[async_trait]
impl<T: Transport> Transport for Chaos<T> {
    async fn connect(&self, service: &str) -> Result<Box<dyn Connection>, TransportError> {
        Ok(Box::new(ChaosConnection(Arc::from(self.0.connect(service).await?))))
    }

    fn describe(&self) -> String {
        format!("{} with chaos", self.0.describe())
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn explain(&self, queue: &QueuePlan) -> Vec<MadeQueue> {
        self.0.explain(queue)
    }
}

struct ChaosConnection(Arc<dyn Connection>);

#[async_trait]
impl Connection for ChaosConnection {
    async fn declare(&self, queue: &QueuePlan) -> Result<(), TransportError> {
        self.0.declare(queue).await
    }

    async fn consume(
        &self,
        queue: &QueuePlan,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        let consumer = self.0.consume(queue, prefetch).await?;
        Ok(Box::new(ChaosConsumer { consumer, connection: Arc::clone(&self.0) }))
    }

    async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        self.0.publish(publication).await
    }

    async fn browse(&self, queue: &str, page: u16) -> Result<Box<dyn Browser>, TransportError> {
        self.0.browse(queue, page).await
    }

    async fn close(&self) {
        self.0.close().await;
    }

    fn system(&self) -> &'static str {
        self.0.system()
    }

    fn status(&self) -> Vec<(String, Status)> {
        self.0.status()
    }
}

struct ChaosConsumer {
    consumer: Box<dyn Consumer>,
    connection: Arc<dyn Connection>,
}

#[async_trait]
impl Consumer for ChaosConsumer {
    async fn next(&mut self) -> Option<Result<Delivery, TransportError>> {
        let delivery = self.consumer.next().await?;
        Some(delivery.map(|delivery| self.disturb(delivery)))
    }

    async fn stop(&mut self) {
        self.consumer.stop().await;
    }

    fn status(&self) -> StatusCell {
        self.consumer.status()
    }
}

impl ChaosConsumer {
    fn disturb(&self, delivery: Delivery) -> Delivery {
        let second_copy = (fastrand::f64() < DUPLICATED).then(|| copy_of(&delivery));
        let connection = Arc::clone(&self.connection);
        delivery.map_settle(|settle| Box::new(ChaosSettle { settle, connection, second_copy }))
    }
}

/// The same message for the same queue, with the topic it was published with.
fn copy_of(delivery: &Delivery) -> Publication {
    let mut message = delivery.message.clone();
    message.headers.insert(wire::EXCHANGE, delivery.exchange.as_str());
    message.headers.insert(wire::ROUTING_KEY, delivery.routing_key.as_str());
    Publication::new(Destination::Queue(delivery.queue.clone()), message)
}

struct ChaosSettle {
    settle: Box<dyn Settle>,
    connection: Arc<dyn Connection>,
    second_copy: Option<Publication>,
}

#[async_trait]
impl Settle for ChaosSettle {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Settled {
        if settlement != Settlement::Ack {
            return self.settle.settle(settlement).await;
        }
        if let Some(copy) = self.second_copy
            && let Err(error) = self.connection.publish(copy).await
        {
            tracing::debug!(%error, "no second copy was made");
        }
        if fastrand::f64() < ACK_DROPPED {
            return match self.settle.settle(Settlement::Requeue).await {
                Settled::Yes => Settled::lost("chaos dropped the acknowledgement"),
                lost @ Settled::Lost { .. } => lost,
            };
        }
        self.settle.settle(settlement).await
    }

    fn is_lost(&self) -> bool {
        self.settle.is_lost()
    }
}
