//! All that is known while one message is handled.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::batch::BatchTerms;
use crate::message::{Envelope, Malformed, Message, MessageId, Meta};
use crate::outcome::{DeadReason, HandlerError};
use crate::publisher::{Lineage, Publisher, hops};
use crate::reply::ReplyPolicy;
use crate::trace::TraceParent;
use crate::transport::Delivery;

/// All that is known while one message is handled: middleware sees it, extractors read from it.
pub struct Context {
    message: Message,
    meta: Meta,
    queue: String,
    exchange: String,
    routing_key: String,
    attempt: u32,
    deferrals: u32,
    redelivered: bool,
    shared: Arc<Shared>,
    publisher: Publisher,
    envelope: OnceLock<Envelope>,
    extensions: Extensions,
    unprotected: bool,
}

/// What all messages of one subscription share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) service: Arc<str>,
    pub(crate) subscription: Arc<str>,
    pub(crate) instance: Arc<str>,
    pub(crate) scope: Arc<str>,
    pub(crate) state: Arc<Extensions>,
    pub(crate) publisher: Publisher,
    /// The headers that what handlers publish takes over.
    pub(crate) propagated: Arc<[String]>,
    pub(crate) replies: ReplyPolicy,
    /// How long the chain before a message may be.
    pub(crate) max_hops: u32,
    /// Cancelled when the service stops.
    pub(crate) stopping: CancellationToken,
    /// How batches gather, if the handler takes batches.
    pub(crate) batches: Option<BatchTerms>,
}

impl Context {
    /// Reads a delivery's properties and headers; its body only where they hold no id.
    pub(crate) fn read(delivery: &mut Delivery, shared: &Arc<Shared>) -> Result<Self, Malformed> {
        let message = std::mem::take(&mut delivery.message);
        let mut meta = match Meta::read(&message) {
            Ok(meta) => meta,
            Err(malformed) => {
                delivery.message = message;
                return Err(malformed);
            }
        };
        let envelope = OnceLock::new();
        if meta.id.is_none()
            && let Ok(read) = Envelope::from_json(message.body.clone())
        {
            meta.id = Some(read.id.clone());
            meta.message_type.get_or_insert_with(|| read.message_type.clone());
            if meta.correlation_id.is_none() {
                meta.correlation_id.clone_from(&read.correlation_id);
            }
            let _ = envelope.set(read);
        }
        let lineage = Lineage::of(&meta, &message.headers, shared);
        Ok(Self {
            message,
            meta,
            queue: std::mem::take(&mut delivery.queue),
            exchange: std::mem::take(&mut delivery.exchange),
            routing_key: std::mem::take(&mut delivery.routing_key),
            attempt: delivery.failed_attempts.saturating_add(1),
            deferrals: delivery.deferrals,
            redelivered: delivery.redelivered,
            publisher: shared.publisher.within(lineage),
            shared: Arc::clone(shared),
            envelope,
            extensions: Extensions::default(),
            unprotected: false,
        })
    }

    /// Gives a message that is not to be handled back to its delivery.
    pub(crate) fn give_back(self, mut delivery: Delivery) -> Delivery {
        delivery.message = self.message;
        delivery.queue = self.queue;
        delivery.exchange = self.exchange;
        delivery.routing_key = self.routing_key;
        delivery
    }

    /// The same message for another attempt after this one failed: nothing that middleware left is
    /// there any more.
    pub(crate) fn after_failure(self) -> Self {
        let attempt = self.attempt.saturating_add(1);
        Self { attempt, ..self.afresh() }
    }

    /// The same message after it was deferred.
    pub(crate) fn after_deferral(self) -> Self {
        let deferrals = self.deferrals.saturating_add(1);
        Self { deferrals, ..self.afresh() }
    }

    /// The same message, of which it is known that so many attempts were begun before.
    pub(crate) fn resumed(self, attempt: u32, deferrals: u32) -> Self {
        let attempt = self.attempt.max(attempt);
        let deferrals = self.deferrals.max(deferrals);
        Self { attempt, deferrals, ..self }
    }

    fn afresh(mut self) -> Self {
        self.start_over();
        Self { extensions: Extensions::default(), unprotected: false, ..self }
    }

    /// For middleware that has the handler run again within the same attempt, after it undid what
    /// the last run did: what the handler publishes gets the same ids again.
    pub fn start_over(&mut self) {
        let lineage = Lineage::of(&self.meta, &self.message.headers, &self.shared);
        self.publisher = self.shared.publisher.within(lineage);
    }

    /// The message as the broker gave it.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// What properties and headers say.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The message's id, if it has one.
    #[must_use]
    pub fn message_id(&self) -> Option<&MessageId> {
        self.meta.id.as_ref()
    }

    /// The message's type: from properties or headers, else from the envelope; empty if neither
    /// has one.
    #[must_use]
    pub fn message_type(&self) -> &str {
        match &self.meta.message_type {
            Some(message_type) => message_type,
            None => self.envelope().map_or("", |envelope| &envelope.message_type),
        }
    }

    /// The envelope. It is decoded at the first call.
    ///
    /// # Errors
    /// When the body is no envelope, or its id is not the one that properties and headers name: a
    /// permanent error.
    pub fn envelope(&self) -> Result<&Envelope, HandlerError> {
        if let Some(envelope) = self.envelope.get() {
            return Ok(envelope);
        }
        let envelope = Envelope::from_json(self.message.body.clone())
            .map_err(|error| HandlerError::dead(DeadReason::Undecodable, error))?;
        if let Some(id) = &self.meta.id
            && *id != envelope.id
        {
            let malformed = Malformed::IdsDiffer {
                first_place: "the property or header",
                first: id.to_string(),
                second_place: "the body",
                second: envelope.id.to_string(),
            };
            return Err(HandlerError::dead(DeadReason::Malformed, malformed));
        }
        Ok(self.envelope.get_or_init(|| envelope))
    }

    /// The service that handles it.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.shared.service
    }

    /// The subscription that it came through.
    #[must_use]
    pub fn subscription(&self) -> &str {
        &self.shared.subscription
    }

    /// The instance of the service: this process, or one of several within it.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.shared.instance
    }

    /// The scope within which an id stands for one effect.
    #[must_use]
    pub fn scope(&self) -> &Arc<str> {
        &self.shared.scope
    }

    /// How batches gather, if the subscription's handler takes batches. Middleware may gather them
    /// itself; see [`Assembly`](crate::Assembly).
    #[must_use]
    pub fn batches(&self) -> Option<&BatchTerms> {
        self.shared.batches.as_ref()
    }

    /// The queue that it was taken from.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The exchange that it was published to; empty if it was sent to the queue by name.
    #[must_use]
    pub fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The topic that it was published with.
    #[must_use]
    pub fn routing_key(&self) -> &str {
        &self.routing_key
    }

    /// How many messages came before it in its chain: 0 for one that no handler published.
    #[must_use]
    pub fn hops(&self) -> u32 {
        hops(&self.message.headers)
    }

    /// Which attempt this is, from 1. Deferrals and copies do not count.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How often it was deferred so far.
    #[must_use]
    pub fn deferrals(&self) -> u32 {
        self.deferrals
    }

    /// Whether the broker says that it showed this one before.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// A publisher whose messages belong to this one's conversation and name it as their cause.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The queue that a reply to this message goes to, if somebody waits for one. It comes from the
    /// property `reply_to`, else from the envelope, else from `payload.replyTo`.
    ///
    /// # Errors
    /// When it names a queue that replies must not go to: a permanent error, `malformed`.
    pub fn reply_address(&self) -> Result<Option<&str>, HandlerError> {
        let in_body = || self.envelope().ok().and_then(|envelope| envelope.reply_to.as_deref());
        let Some(address) = self.meta.reply_to.as_deref().or_else(in_body) else {
            return Ok(None);
        };
        match self.shared.replies.check(address, &self.queue) {
            Ok(()) => Ok(Some(address)),
            Err(refused) => Err(HandlerError::dead(DeadReason::Malformed, refused)),
        }
    }

    /// Ready when the service stops: no more messages are fetched, and what is at hand has until the
    /// end of the drain. For middleware that waits: it gives the message back then, such as by
    /// deferring it.
    pub async fn stopping(&self) {
        self.shared.stopping.cancelled().await;
    }

    /// Leaves a value for extractors and inner middleware.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) -> Option<T> {
        self.extensions.insert(value)
    }

    /// A value that middleware left.
    #[must_use]
    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.extensions.value()
    }

    /// Takes a value away again.
    pub fn remove<T: Send + Sync + 'static>(&mut self) -> Option<T> {
        self.extensions.remove()
    }

    /// Where the handling of this message stands in its trace: the span of the handling with the
    /// feature `otel`, if that is exported, or else what the message's `traceparent` says.
    #[must_use]
    pub fn trace_parent(&self) -> Option<TraceParent> {
        crate::trace::place(&self.message.headers)
    }

    /// Links the span of this handling to a place in another trace, with the feature `otel`.
    pub fn link_trace(&self, to: TraceParent) {
        crate::trace::link(to);
    }

    /// A value of the service's state.
    #[must_use]
    pub fn state<S: Send + Sync + 'static>(&self) -> Option<&S> {
        self.shared.state.value()
    }

    /// Notes that this message runs without protection against duplicates, so that it is counted
    /// as such.
    pub fn mark_unprotected(&mut self) {
        self.unprotected = true;
    }

    pub(crate) fn is_unprotected(&self) -> bool {
        self.unprotected
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("meta", &self.meta)
            .field("queue", &self.queue)
            .field("routing_key", &self.routing_key)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Values by their type. There are few of them, so a list is the fastest map.
#[derive(Default)]
pub(crate) struct Extensions(Vec<(TypeId, Box<dyn Any + Send + Sync>)>);

impl Extensions {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) -> Option<T> {
        let before = self.remove();
        self.0.push((TypeId::of::<T>(), Box::new(value)));
        before
    }

    pub(crate) fn value<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let (_, value) = self.0.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        value.downcast_ref()
    }

    pub(crate) fn remove<T: Send + Sync + 'static>(&mut self) -> Option<T> {
        let at = self.0.iter().position(|(id, _)| *id == TypeId::of::<T>())?;
        self.0.swap_remove(at).1.downcast().ok().map(|value| *value)
    }

    pub(crate) fn contains(&self, id: TypeId) -> bool {
        self.0.iter().any(|(had, _)| *had == id)
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extensions({})", self.0.len())
    }
}
