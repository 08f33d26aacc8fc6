//! The two connections that a service has as one.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use mmate_core::health::Status;
use mmate_core::transport::{
    Browser, Connection, Consumer, Declare, Publication, PublishError, QueueMode, QueuePlan,
    TransportError, TransportErrorKind,
};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::consumer::{AmqpBrowser, AmqpConsumer, Declared, Subscription};
use crate::failure::Failure;
use crate::link::{Dialer, Link, Role};
use crate::publisher::{Parcel, Publisher};
use crate::topology;

/// A service's connection: one to publish on and, from the first declaration, one to consume on.
pub(crate) struct AmqpConnection {
    publisher: Arc<Publisher>,
    consuming: Dialer,
    consume_link: OnceCell<Arc<Link>>,
    declared: Arc<Declared>,
    closing: CancellationToken,
}

impl AmqpConnection {
    pub(crate) fn new(publishing: Link, consuming: Dialer) -> Self {
        Self {
            publisher: Arc::new(Publisher::new(publishing, &consuming.settings)),
            consuming,
            consume_link: OnceCell::new(),
            declared: Arc::default(),
            closing: CancellationToken::new(),
        }
    }

    async fn consume_link(&self) -> Result<&Arc<Link>, TransportError> {
        let opening = self
            .consume_link
            .get_or_try_init(|| async { Link::open(self.consuming.clone()).await.map(Arc::new) });
        let link = tokio::select! {
            biased;
            () = self.closing.cancelled() => return Err(closed()),
            link = opening => link?,
        };
        if self.closing.is_cancelled() {
            // Opened while it was being closed, which did not see it.
            link.close().await;
            return Err(closed());
        }
        Ok(link)
    }
}

fn closed() -> TransportError {
    TransportError::new(TransportErrorKind::Closed, "use the connection")
}

#[async_trait]
impl Connection for AmqpConnection {
    async fn declare(&self, plan: &QueuePlan) -> Result<(), TransportError> {
        let link = self.consume_link().await?;
        let settings = &self.consuming.settings;
        let mut failures = 0;
        loop {
            let session = link.session().await.map_err(|failure| match failure {
                Failure::Closed => closed(),
                failure => failure.into_error(format!("declare the queue {}", plan.name)),
            })?;
            let error = match topology::declare(&session, plan, settings.delivery_limit).await {
                Ok(()) => {
                    self.declared.remember(&plan.name, &session);
                    return Ok(());
                }
                Err(error) => error,
            };
            // A cut on the way is no answer. What the broker does not know at all it answers with
            // a cut.
            let cut = session.is_lost() && error.kind() != TransportErrorKind::Configuration;
            if error.kind() != TransportErrorKind::Unreachable && !cut {
                return Err(error);
            }
            failures += 1;
            tracing::warn!(queue = plan.name, %error, "cannot declare; trying again");
            tokio::time::sleep(settings.reconnect.delay(failures)).await;
        }
    }

    async fn consume(
        &self,
        plan: &QueuePlan,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, TransportError> {
        let link = self.consume_link().await?;
        let Dialer { settings, service, .. } = &self.consuming;
        let (publisher, declared) = (&self.publisher, &self.declared);
        let subscription =
            Subscription::new(plan, prefetch, service, link, publisher, settings, declared);
        Ok(Box::new(AmqpConsumer::start(subscription).await?))
    }

    async fn browse(&self, queue: &str, page: u16) -> Result<Box<dyn Browser>, TransportError> {
        let link = self.consume_link().await?;
        let mut plan = QueuePlan::new(queue, QueueMode::Shared);
        plan.declare = Declare::LeaveAlone;
        let Dialer { settings, service, .. } = &self.consuming;
        let (publisher, declared) = (&self.publisher, &self.declared);
        let subscription =
            Subscription::new(&plan, page, service, link, publisher, settings, declared);
        let session = link.session().await.map_err(|_| closed())?;
        Ok(Box::new(AmqpBrowser::open(subscription, &session).await?))
    }

    async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        let parcel = Arc::new(Parcel::of(&publication)?);
        self.publisher.publish(parcel, self.consuming.settings.publish_timeout).await
    }

    fn system(&self) -> &'static str {
        "rabbitmq"
    }

    fn status(&self) -> Vec<(String, Status)> {
        let publishing = (Role::Publish, self.publisher.link());
        let consuming = self.consume_link.get().map(|link| (Role::Consume, &**link));
        let links = std::iter::once(publishing).chain(consuming);
        links.map(|(role, link)| (role.as_str().to_owned(), link.status())).collect()
    }

    async fn close(&self) {
        self.closing.cancel();
        let consuming = async {
            if let Some(link) = self.consume_link.get() {
                link.close().await;
            }
        };
        // What still runs on the one may use the other: first no more deliveries.
        consuming.await;
        self.publisher.close().await;
    }
}

impl fmt::Debug for AmqpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpConnection")
            .field("address", &self.consuming.address)
            .field("publisher", &self.publisher)
            .finish_non_exhaustive()
    }
}
