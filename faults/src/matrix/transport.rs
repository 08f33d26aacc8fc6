//! RabbitMQ with failpoints at deliveries and acknowledgements.

use std::sync::Arc;

use async_trait::async_trait;
use mmate_amqp::Amqp;
use mmate_core::health::{Status, StatusCell};
use mmate_core::transport::{
    Browser, Connection, Consumer, Delivery, Limits, Publication, PublishError, QueuePlan, Settle,
    Settled, Settlement, Transport, TransportError,
};

use super::cell::Boundary;
use super::point::{Point, Strike};
use crate::proxy::Proxy;

/// What deliveries pass.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) point: Arc<Point>,
    pub(crate) proxy: Arc<Proxy>,
}

pub(crate) struct Pointed<T> {
    pub(crate) inner: T,
    pub(crate) way: Way,
}

#[async_trait]
impl Transport for Pointed<Amqp> {
    async fn connect(&self, service: &str) -> Result<Box<dyn Connection>, TransportError> {
        let inner = self.inner.connect(service).await?;
        Ok(Box::new(Pointed { inner, way: self.way.clone() }))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

#[async_trait]
impl Connection for Pointed<Box<dyn Connection>> {
    async fn declare(&self, queue: &QueuePlan) -> Result<(), TransportError> {
        self.inner.declare(queue).await
    }

    async fn consume(
        &self,
        queue: &QueuePlan,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        let inner = self.inner.consume(queue, prefetch).await?;
        Ok(Box::new(Pointed { inner, way: self.way.clone() }))
    }

    async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        self.inner.publish(publication).await
    }

    async fn browse(&self, queue: &str, page: u16) -> Result<Box<dyn Browser>, TransportError> {
        self.inner.browse(queue, page).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    fn system(&self) -> &'static str {
        self.inner.system()
    }

    fn status(&self) -> Vec<(String, Status)> {
        self.inner.status()
    }
}

#[async_trait]
impl Consumer for Pointed<Box<dyn Consumer>> {
    async fn next(&mut self) -> Option<Result<Delivery, TransportError>> {
        loop {
            let delivery = match self.inner.next().await? {
                Ok(delivery) => delivery,
                error => return Some(error),
            };
            let id = id_of(&delivery);
            if self.way.point.at(Boundary::Received, &id).is_none() {
                let way = self.way.clone();
                let wrap = |inner| Box::new(Ack { inner, way, id }) as Box<dyn Settle>;
                return Some(Ok(delivery.map_settle(wrap)));
            }
            // It did not arrive, and neither does anything else on this connection.
            self.way.proxy.cut();
        }
    }

    async fn stop(&mut self) {
        self.inner.stop().await;
    }

    fn status(&self) -> StatusCell {
        self.inner.status()
    }

    async fn leave(&mut self) {
        self.inner.leave().await;
    }
}

fn id_of(delivery: &Delivery) -> String {
    delivery.message.properties.message_id.as_deref().unwrap_or_default().to_owned()
}

struct Ack {
    inner: Box<dyn Settle>,
    way: Way,
    id: String,
}

#[async_trait]
impl Settle for Ack {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Settled {
        if settlement != Settlement::Ack {
            return self.inner.settle(settlement).await;
        }
        match self.way.point.at(Boundary::AckWritten, &self.id) {
            Some(Strike::Error) => {
                self.way.proxy.cut();
                return Settled::lost("the connection was cut");
            }
            Some(Strike::Lost) => {
                // Written into a connection that nothing comes out of any more.
                self.way.proxy.cut();
                return Settled::Yes;
            }
            None => {}
        }
        let settled = self.inner.settle(settlement).await;
        self.way.point.at(Boundary::AckApplied, &self.id);
        settled
    }

    fn is_lost(&self) -> bool {
        self.inner.is_lost()
    }
}
