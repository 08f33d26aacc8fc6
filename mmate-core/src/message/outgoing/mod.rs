//! Messages on their way out.

mod publication;

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::headers::{HeaderValue, Headers};
use super::id::{CausationId, CorrelationId, InvalidId, MAX_ID_BYTES, MessageId};
use super::meta::MessageKind;
use super::wire;
use crate::topic::{InvalidTopic, Topic};
use crate::transport::Destination;

/// A message to publish: where it goes, its type, its payload, and what may be set beside them.
///
/// What is wrong with it (a topic with a wildcard, a payload that is not representable in JSON) is
/// told by the [`Publisher`](crate::Publisher) that it is given to.
///
/// ```
/// use mmate_core::Outgoing;
/// #[derive(serde::Serialize)]
/// struct OrderCreated { order_id: u64 }
///
/// let event = Outgoing::event("order.created.us-west", "OrderCreated", &OrderCreated { order_id: 7 })
///     .header("tenant", "acme");
/// # let _ = event;
/// ```
#[derive(Debug)]
#[must_use = "a message does nothing until a publisher publishes it"]
pub struct Outgoing {
    target: Result<Destination, InvalidMessage>,
    kind: MessageKind,
    message_type: String,
    payload: Result<Bytes, serde_json::Error>,
    id: Option<Result<MessageId, InvalidId>>,
    correlation_id: Option<CorrelationId>,
    causation_id: Option<CausationId>,
    reply_to: Option<String>,
    conversation: Option<CorrelationId>,
    hops: u32,
    begins_chain: bool,
    expires_after: Option<Duration>,
    delay: Option<Duration>,
    priority: Option<u8>,
    headers: Headers,
    mandatory: bool,
}

/// Why a message cannot be published as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// The topic is none.
    #[error(transparent)]
    Topic(#[from] InvalidTopic),
    /// The queue's name is empty or longer than 255 bytes.
    #[error("a queue's name has 1 to 255 bytes, {name:?} has {}", name.len())]
    Queue {
        /// The name.
        name: String,
    },
    /// The message's type is empty or longer than 255 bytes.
    #[error("a message type has 1 to {MAX_ID_BYTES} bytes, {message_type:?} has {}", message_type.len())]
    Type {
        /// The type.
        message_type: String,
    },
    /// The given id is not usable.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// The payload is not representable in JSON.
    #[error("the payload of the {message_type:?} is not representable in JSON")]
    Payload {
        /// The message's type.
        message_type: String,
        /// Why.
        source: serde_json::Error,
    },
    /// It is to be delayed for longer than the broker can.
    #[error(
        "a delay of {delay:?} is longer than the {limit:?} that the broker delays a message at \
         most: keep the message until it is nearer, such as in a table, and publish it then"
    )]
    Delay {
        /// The delay.
        delay: Duration,
        /// The longest.
        limit: Duration,
    },
    /// It is to be delayed, and to expire.
    #[error(
        "a message that is delayed cannot expire as well: the broker has one time for both, so \
         leave out expires_after or delay"
    )]
    DelayedAndExpiring,
    /// The headers would not fit one frame of the broker.
    #[error("the headers take {bytes} bytes, {limit} at most are sent")]
    Headers {
        /// What they take.
        bytes: usize,
        /// What may be taken.
        limit: usize,
    },
}

/// A frame has 128 KiB, and headers must fit one; half of it leaves room for what a broker adds.
const MAX_HEADER_BYTES: usize = 64 * 1024;

impl Outgoing {
    /// An event, published to everybody whose pattern matches the topic
    /// (`{entity}.{action}.{region}`, such as `order.created.us-west`).
    pub fn event<T: Serialize + ?Sized>(
        topic: impl Into<String>,
        message_type: impl Into<String>,
        payload: &T,
    ) -> Self {
        let target = exchange(wire::EVENTS, topic.into());
        Self::new(target, MessageKind::Event, message_type.into(), payload)
    }

    /// A command to a service; its topic is `cmd.{service}.{type}`.
    pub fn command<T: Serialize + ?Sized>(
        service: &str,
        message_type: impl Into<String>,
        payload: &T,
    ) -> Self {
        let message_type = message_type.into();
        let target = exchange(wire::COMMANDS, format!("cmd.{service}.{message_type}"));
        Self::new(target, MessageKind::Command, message_type, payload)
    }

    /// A query to whoever answers it; its topic is `qry.{type}`.
    pub fn query<T: Serialize + ?Sized>(message_type: impl Into<String>, payload: &T) -> Self {
        let message_type = message_type.into();
        let target = exchange(wire::QUERIES, format!("qry.{message_type}"));
        Self::new(target, MessageKind::Query, message_type, payload)
    }

    /// A message straight into one queue. Its kind is command unless [`kind`](Self::kind) says
    /// otherwise.
    pub fn to_queue<T: Serialize + ?Sized>(
        queue: impl Into<String>,
        message_type: impl Into<String>,
        payload: &T,
    ) -> Self {
        let name = queue.into();
        let target = if name.is_empty() || name.len() > 255 {
            Err(InvalidMessage::Queue { name })
        } else {
            Ok(Destination::Queue(name))
        };
        Self::new(target, MessageKind::Command, message_type.into(), payload)
    }

    /// As [`to_queue`](Self::to_queue), with a payload that is JSON already.
    pub(crate) fn to_queue_raw(queue: &str, message_type: String, payload: Bytes) -> Self {
        Self { payload: Ok(payload), ..Self::to_queue(queue, message_type, &()) }
    }

    fn new<T: Serialize + ?Sized>(
        target: Result<Destination, InvalidMessage>,
        kind: MessageKind,
        message_type: String,
        payload: &T,
    ) -> Self {
        Self {
            target,
            kind,
            message_type,
            payload: serde_json::to_vec(payload).map(Bytes::from),
            id: None,
            correlation_id: None,
            causation_id: None,
            reply_to: None,
            conversation: None,
            hops: 0,
            begins_chain: false,
            expires_after: None,
            delay: None,
            priority: None,
            headers: Headers::new(),
            mandatory: true,
        }
    }

    /// Gives the message an id instead of a fresh one. Publishing the same id again makes a
    /// duplicate, which is what a publisher that repeats itself wants.
    pub fn id(mut self, id: MessageId) -> Self {
        self.id = Some(Ok(id));
        self
    }

    /// Gives the message an id by its text, such as an id that a client sent.
    pub fn id_text(mut self, id: impl AsRef<str>) -> Self {
        self.id = Some(MessageId::parse(id));
        self
    }

    /// Sets the conversation. Otherwise it is the one of the message being handled, or a new one
    /// named after this message.
    pub fn correlation_id(mut self, id: CorrelationId) -> Self {
        self.correlation_id = Some(id);
        self
    }

    /// Begins a new chain, when published from a handler: with a conversation of its own, no cause,
    /// no inherited headers, and a count of [hops](crate::Service::max_hops) from 0. For what goes on
    /// for ever by design, such as a tick that publishes the next one. The id still is a function of
    /// the message being handled, so a second run publishes the same one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mmate_core::Outgoing;
    /// let tick = Outgoing::event("clock.ticked.eu", "Ticked", &7).begin_chain().delay(Duration::from_secs(60));
    /// # let _ = tick;
    /// ```
    pub fn begin_chain(mut self) -> Self {
        self.begins_chain = true;
        self
    }

    /// Sets the queue that a reply goes to.
    pub fn reply_to(mut self, queue: impl Into<String>) -> Self {
        self.reply_to = Some(queue.into());
        self
    }

    /// Sets a header, in the envelope and on the broker.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the kind.
    pub fn kind(mut self, kind: MessageKind) -> Self {
        self.kind = kind;
        self
    }

    /// Takes the message out of a queue in which it has waited for so long, to the millisecond and 49
    /// days at most, without having been shown to anybody. What was shown and comes back by a retry
    /// does not expire.
    ///
    /// A quorum queue, the default, gives what has expired to its dead-letter queue; a classic one
    /// forgets it. Each queue looks at its first message only, so one that waits behind others may
    /// be there longer, but is not shown.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mmate_core::Outgoing;
    /// let offer = Outgoing::event("offer.made.eu", "OfferMade", &7).expires_after(Duration::from_secs(60));
    /// # let _ = offer;
    /// ```
    pub fn expires_after(mut self, time: Duration) -> Self {
        self.expires_after = Some(time);
        self
    }

    /// Has the broker keep the message for so long, to the millisecond, and deliver it then: to
    /// whatever queues its topic reaches at that moment, or to the queue it is sent to by name. The
    /// process may end meanwhile. What is published without a delay overtakes it.
    ///
    /// - Publishing returns when the broker has stored it. Whether any queue takes an *event* (or
    ///   command, or query) is only known at the end of the delay, when nobody can be told: if none
    ///   does, it vanishes, be [`allow_unroutable`](Self::allow_unroutable) said or not. A queue that
    ///   is named must be there when it is published, and outlive the process that made it.
    /// - RabbitMQ delays for 24 hours at most; a longer delay is [`InvalidMessage::Delay`].
    /// - A delayed message cannot [expire](Self::expires_after):
    ///   [`InvalidMessage::DelayedAndExpiring`].
    /// - A [request](crate::Publisher::request) can be delayed; its timeout counts all the same.
    ///
    /// ```
    /// use std::time::Duration;
    /// use mmate_core::Outgoing;
    /// let reminder = Outgoing::event("order.unpaid.eu", "OrderUnpaid", &7).delay(Duration::from_secs(3600));
    /// # let _ = reminder;
    /// ```
    pub fn delay(mut self, time: Duration) -> Self {
        self.delay = Some(time).filter(|time| !time.is_zero());
        self
    }

    /// Says how urgent the message is: 0, as without this, to 255. A queue that has
    /// [priorities](crate::SubscriptionBuilder::max_priority) shows what is more urgent first; to
    /// other queues it means nothing.
    ///
    /// ```
    /// use mmate_core::Outgoing;
    /// let alarm = Outgoing::event("sensor.alarm.eu", "Alarm", &7).priority(9);
    /// # let _ = alarm;
    /// ```
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Lets the message vanish when no queue takes it. Without this, publishing a message that
    /// reaches no queue is an error.
    pub fn allow_unroutable(mut self) -> Self {
        self.mandatory = false;
        self
    }

    pub(crate) fn has_id(&self) -> bool {
        self.id.is_some()
    }

    pub(crate) fn begins_chain(&self) -> bool {
        self.begins_chain
    }

    /// So many messages come before it in its chain.
    pub(crate) fn after_hops(&mut self, hops: u32) {
        self.hops = hops;
    }

    /// Takes over headers, where it has none of that name.
    pub(crate) fn inherit(&mut self, headers: &Headers) {
        for (name, value) in headers {
            if !self.headers.contains(name) {
                self.headers.insert(name.clone(), value.clone());
            }
        }
    }

    pub(crate) fn caused_by(&mut self, correlation: CorrelationId, cause: Option<MessageId>) {
        self.correlation_id.get_or_insert(correlation);
        self.causation_id = cause;
    }

    /// Makes it a request whose reply comes to that queue, and says by which id it is waited for.
    ///
    /// Who answers repeats the correlation id, in every implementation, and nothing else for
    /// certain. So it names the request alone; the conversation goes in a header.
    pub(crate) fn ask(mut self, reply_to: &str) -> Result<(Self, MessageId), InvalidMessage> {
        let id = self.id.take().transpose()?.unwrap_or_else(MessageId::generate);
        let own = CorrelationId::from(&id);
        self.conversation = self.correlation_id.replace(own.clone()).filter(|had| *had != own);
        self.reply_to = Some(reply_to.to_owned());
        Ok((self.id(id.clone()), id))
    }

    /// Writes `success` into a payload that is an object and does not have it: without it mmate for
    /// Go takes a reply for a failure.
    pub(crate) fn with_success(mut self) -> Self {
        self.payload = self.payload.map(|json| with_field(json, "success", &Value::Bool(true)));
        self
    }
}

/// Writes a field into a payload that is an object and does not have it yet.
fn with_field(payload: Bytes, name: &str, value: &Value) -> Bytes {
    let Ok(Value::Object(object)) = serde_json::from_slice::<Value>(&payload) else {
        return payload;
    };
    if object.contains_key(name) {
        return payload;
    }
    // The object is opened, not rebuilt, so that its numbers stay as they were written.
    let opened = payload.iter().position(|b| *b == b'{').map_or(0, |at| at + 1);
    let separator = if object.is_empty() { "" } else { "," };
    let mut json = format!("{{\"{name}\":{value}{separator}").into_bytes();
    json.extend_from_slice(&payload[opened..]);
    json.into()
}

fn exchange(name: &'static str, topic: String) -> Result<Destination, InvalidMessage> {
    Ok(Destination::Exchange { name: name.to_owned(), topic: Topic::new(topic)? })
}
