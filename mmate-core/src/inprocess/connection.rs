//! A connection to the broker.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::broker::{Broker, ConnectionId};
use super::browser::InProcessBrowser;
use super::consumer::InProcessConsumer;
use crate::health::Status;
use crate::transport::{
    Browser, Connection, Consumer, Publication, PublishError, QueuePlan, TransportError,
};

pub(super) struct InProcessConnection {
    broker: Arc<Broker>,
    id: ConnectionId,
    longest_delay: Option<Duration>,
}

impl InProcessConnection {
    pub(super) async fn open(broker: &Arc<Broker>, longest_delay: Option<Duration>) -> Self {
        let id = broker.lock().connect();
        let connection = Self { broker: Arc::clone(broker), id, longest_delay };
        drop(broker.reach(id).await);
        connection
    }

    fn end(&self) {
        self.broker.lock().close(self.id);
        self.broker.announce();
    }
}

#[async_trait]
impl Connection for InProcessConnection {
    async fn declare(&self, queue: &QueuePlan) -> Result<(), TransportError> {
        self.broker.reach(self.id).await.declare(queue, self.id)
    }

    async fn consume(
        &self,
        queue: &QueuePlan,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        let mut state = self.broker.reach(self.id).await;
        let (id, wake) = state.subscribe(&queue.name, prefetch, self.id)?;
        drop(state);
        Ok(Box::new(InProcessConsumer::new(Arc::clone(&self.broker), id, &queue.name, wake)))
    }

    async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        publication.check_delay(self.longest_delay)?;
        let delayed = publication.delay.is_some();
        let published = self.broker.reach(self.id).await.publish(publication, self.id);
        if delayed {
            // Who waits for the broker to be idle has to know when to look again.
            self.broker.announce();
        }
        published
    }

    async fn browse(&self, queue: &str, _page: u16) -> Result<Box<dyn Browser>, TransportError> {
        let mut state = self.broker.reach(self.id).await;
        let opened = state.open_browser(queue, self.id)?;
        drop(state);
        Ok(Box::new(InProcessBrowser::new(Arc::clone(&self.broker), self.id, opened)))
    }

    async fn close(&self) {
        self.end();
    }

    fn system(&self) -> &'static str {
        "in_process"
    }

    fn status(&self) -> Vec<(String, Status)> {
        vec![("broker".to_owned(), self.broker.lock().status(self.id))]
    }
}

impl Drop for InProcessConnection {
    fn drop(&mut self) {
        self.end();
    }
}
