//! Publishing, from a handler or from outside.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use tracing::Instrument;

use crate::context::Shared;
use crate::health::Health;
use crate::message::{CorrelationId, Headers, InvalidMessage, MessageId, Meta, Outgoing, wire};
use crate::request::{Request, Requests};
use crate::trace;
use crate::transport::{Connection, Publication, PublishError, Transport, TransportError};

/// Publishes messages and returns when the broker has them. Cheap to clone.
///
/// As an argument of a handler, it belongs to the message being handled: what it publishes carries
/// that message's correlation id, names it as the cause, and gets ids that are a function of it,
/// so that a second run of the handler publishes the same ids again.
///
/// ```
/// use mmate_core::{HandlerError, Json, Outgoing, Publisher};
/// # #[derive(serde::Deserialize)] struct OrderCreated { order_id: u64 }
/// async fn bill(Json(order): Json<OrderCreated>, publisher: Publisher) -> Result<(), HandlerError> {
///     publisher.publish(Outgoing::event("invoice.created.eu", "InvoiceCreated", &order.order_id)).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Publisher {
    connection: Arc<dyn Connection>,
    source: Arc<str>,
    lineage: Option<Arc<Lineage>>,
    requests: Arc<Requests>,
}

/// The message that others are published because of.
#[derive(Debug)]
pub(crate) struct Lineage {
    cause: Option<MessageId>,
    correlation: Option<CorrelationId>,
    /// How many messages come before those that are published because of it.
    hops: u32,
    scope: Arc<str>,
    published: AtomicU64,
    /// What goes from the message to all that is published because of it.
    inherited: Headers,
    trace: Headers,
}

impl Lineage {
    pub(crate) fn of(meta: &Meta, headers: &Headers, shared: &Shared) -> Self {
        let inherit = |name: &String| Some((name.clone(), headers.value(name)?.clone()));
        let mut trace = Headers::new();
        trace::pass_on(headers, &mut trace);
        Self {
            inherited: shared.propagated.iter().filter_map(inherit).collect(),
            trace,
            cause: meta.id.clone(),
            correlation: meta
                .conversation
                .clone()
                .or_else(|| meta.correlation_id.clone())
                .or_else(|| meta.id.as_ref().map(CorrelationId::from)),
            hops: hops(headers).saturating_add(1),
            scope: Arc::clone(&shared.scope),
            published: AtomicU64::new(0),
        }
    }
}

/// How many messages came before one in its chain, by its headers.
pub(crate) fn hops(headers: &Headers) -> u32 {
    let hops = headers.int(wire::HOPS).unwrap_or_default();
    u32::try_from(hops.max(0)).unwrap_or(u32::MAX)
}

impl Publisher {
    /// Connects to a broker just to publish, under the name of a service.
    ///
    /// # Errors
    /// As [`Transport::connect`].
    pub async fn connect<T: Transport>(
        transport: &T,
        source: impl Into<Arc<str>>,
    ) -> Result<Self, TransportError> {
        let source = source.into();
        let connection = Arc::from(transport.connect(&source).await?);
        let instance = format!("{:016x}", fastrand::u64(..));
        Ok(Self::new(connection, source, &instance))
    }

    pub(crate) fn new(connection: Arc<dyn Connection>, source: Arc<str>, instance: &str) -> Self {
        let requests = Arc::new(Requests::new(&source, instance));
        Self { connection, source, lineage: None, requests }
    }

    pub(crate) fn within(&self, lineage: Lineage) -> Self {
        Self {
            connection: Arc::clone(&self.connection),
            source: Arc::clone(&self.source),
            lineage: Some(Arc::new(lineage)),
            requests: Arc::clone(&self.requests),
        }
    }

    /// Publishes a message, and returns its id when the broker has taken responsibility for it.
    ///
    /// # Errors
    /// [`PublishError`] says whether the message was invalid, found no queue, was refused, or
    /// whether nobody knows ([`PublishError::Ambiguous`]).
    pub async fn publish(&self, message: Outgoing) -> Result<MessageId, PublishError> {
        let (id, publication) = self.attributed(message).into_publication(&self.source)?;
        self.send(&id, publication).await?;
        Ok(id)
    }

    /// Publishes many messages at once, as far as the broker's window has room, and returns for each,
    /// in their order, what [`publish`](Self::publish) would. One that fails leaves the others alone.
    ///
    /// In a handler, ids are given in the order of the messages, so a second run that publishes the
    /// same messages in the same order publishes the same ids.
    ///
    /// ```
    /// # use mmate_core::{InProcess, Outgoing, Publisher};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let publisher = Publisher::connect(&InProcess::new(), "shop").await?;
    /// let events = (1..=3).map(|n| Outgoing::event("order.created.eu", "OrderCreated", &n).allow_unroutable());
    /// let results = publisher.publish_all(events).await;
    /// assert!(results.iter().all(Result::is_ok));
    /// # Ok(()) }
    /// ```
    pub async fn publish_all<I>(&self, messages: I) -> Vec<Result<MessageId, PublishError>>
    where
        I: IntoIterator<Item = Outgoing>,
    {
        // All ids are given before the first message is on its way.
        let messages: Vec<_> = messages
            .into_iter()
            .map(|message| self.attributed(message).into_publication(&self.source))
            .collect();
        let publishing = messages.into_iter().map(|prepared| async move {
            let (id, publication) = prepared?;
            self.send(&id, publication).await?;
            Ok(id)
        });
        futures_util::stream::iter(publishing).buffered(AT_ONCE).collect().await
    }

    /// Makes of a message what would go on the wire, without publishing it: it has its id, its place
    /// in the conversation and its headers, and can be kept, such as in a database, to be published
    /// later with [`publish_prepared`](Self::publish_prepared).
    ///
    /// In a handler the id is given as by [`publish`](Self::publish), from the same count.
    ///
    /// ```
    /// # use mmate_core::{InProcess, Outgoing, Publisher};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let publisher = Publisher::connect(&InProcess::new(), "shop").await?;
    /// let event = Outgoing::event("order.created.eu", "OrderCreated", &7).allow_unroutable();
    /// let (id, publication) = publisher.prepare(event)?;
    /// assert_eq!(publication.message.properties.message_id.as_deref(), Some(id.as_str()));
    /// publisher.publish_prepared(publication).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the message cannot be published as it is.
    pub fn prepare(&self, message: Outgoing) -> Result<(MessageId, Publication), InvalidMessage> {
        let (id, mut publication) = self.attributed(message).into_publication(&self.source)?;
        if let Some(lineage) = &self.lineage {
            trace::pass_on(&lineage.trace, &mut publication.message.headers);
        }
        trace::inject(&tracing::Span::current(), &mut publication.message.headers);
        Ok((id, publication))
    }

    /// Publishes what [`prepare`](Self::prepare) or [`Outgoing::prepare`] made, as it is: with the id
    /// that it has, as often as it is called.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_prepared(&self, mut publication: Publication) -> Result<(), PublishError> {
        let id = publication.message.properties.message_id.as_deref().unwrap_or_default();
        let span = trace::send(&publication.destination, id, self.system());
        trace::resume(&span, &publication.message.headers);
        trace::inject(&span, &mut publication.message.headers);
        self.connection.publish(publication).instrument(span).await
    }

    /// Asks, and waits for the reply: a command or a query, to be awaited.
    ///
    /// The reply is decoded to whatever type is asked for. The wait ends after 30 s unless
    /// [`timeout`](Request::timeout) says otherwise; dropping the future ends it at once. Any number
    /// of requests can wait at the same time. In a handler, a request belongs to the message being
    /// handled, as with [`publish`](Self::publish).
    ///
    /// ```no_run
    /// # use serde::{Deserialize, Serialize};
    /// # use mmate_core::{Outgoing, Publisher, RequestError};
    /// use std::time::Duration;
    /// # #[derive(Serialize)] struct PriceOf { sku: String }
    /// # #[derive(Deserialize)] struct Price { cents: u64 }
    /// # async fn example(publisher: Publisher) -> Result<(), RequestError> {
    /// let question = Outgoing::query("GetPrice", &PriceOf { sku: "A-1".to_owned() });
    /// let price: Price = publisher.request(question).timeout(Duration::from_secs(5)).await?;
    /// # let _ = price.cents; Ok(()) }
    /// ```
    pub fn request<T>(&self, message: Outgoing) -> Request<T> {
        Request::new(self.clone(), message)
    }

    /// How many requests wait for their replies now, over all clones of this publisher.
    #[must_use]
    pub fn requests_waiting(&self) -> usize {
        self.requests.waiting()
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    pub(crate) fn connection(&self) -> &dyn Connection {
        &*self.connection
    }

    /// The name of the service in whose name it publishes.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How its connections are, live: for a process that only publishes. Of a service there is
    /// [`Running::health`](crate::Running::health), which knows its subscriptions as well.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::new(Arc::clone(&self.source), Arc::clone(&self.connection), Vec::new())
    }

    /// Gives a message its place in the conversation that it belongs to, and its id.
    pub(crate) fn attributed(&self, mut message: Outgoing) -> Outgoing {
        if let Some(lineage) = &self.lineage {
            if !message.begins_chain() {
                message.after_hops(lineage.hops);
                message.inherit(&lineage.inherited);
                if let Some(correlation) = &lineage.correlation {
                    message.caused_by(correlation.clone(), lineage.cause.clone());
                }
            }
            if let (Some(cause), false) = (&lineage.cause, message.has_id()) {
                let ordinal = lineage.published.fetch_add(1, Ordering::Relaxed);
                message = message.id(cause.child(&lineage.scope, ordinal));
            }
        }
        message
    }

    /// Publishes what was prepared from an attributed message.
    pub(crate) async fn send(
        &self,
        id: &MessageId,
        mut publication: Publication,
    ) -> Result<(), PublishError> {
        if let Some(lineage) = &self.lineage {
            trace::pass_on(&lineage.trace, &mut publication.message.headers);
        }
        let span = trace::send(&publication.destination, id.as_str(), self.system());
        trace::inject(&span, &mut publication.message.headers);
        self.connection.publish(publication).instrument(span).await
    }

    /// The broker's kind, for traces.
    pub(crate) fn system(&self) -> &'static str {
        self.connection.system()
    }

    /// Closes the connection. Only for a publisher made by [`connect`](Self::connect); a service
    /// closes its own.
    pub async fn close(&self) {
        self.connection.close().await;
    }
}

/// How many messages of a batch wait for the broker at a time, or for the transport's own window if
/// that is narrower.
const AT_ONCE: usize = 1_000;

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("source", &self.source)
            .field("lineage", &self.lineage)
            .finish_non_exhaustive()
    }
}
