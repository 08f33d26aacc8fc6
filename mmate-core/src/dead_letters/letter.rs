//! One dead letter, as an operator sees it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::message::{DecodeError, Envelope, Message, time_from_text, wire};
use crate::transport::{Death, Delivery};

/// A message that was given up, and why. A copy: nothing that is done with it touches the queue.
#[derive(Debug, Clone)]
pub struct Letter {
    message: Message,
    queue: String,
    exchange: String,
    routing_key: String,
    /// The broker's own note, if it was the broker that gave the message up last.
    death: Option<Death>,
    envelope_id: Option<String>,
}

impl Letter {
    /// Reads a letter from the dead-letter queue of `queue`, which may be parted.
    pub(super) fn read(delivery: &Delivery, queue: &str) -> Self {
        let message = delivery.message.clone();
        let queue = part(&delivery.message, &delivery.deaths, queue);
        let death = newest_by_broker(&message, &delivery.deaths, queue).cloned();
        let said = |name| message.headers.text(name).map(str::to_owned);
        let (exchange, routing_key) = match (said(wire::EXCHANGE), said(wire::ROUTING_KEY), &death)
        {
            (Some(exchange), Some(routing_key), _) => (exchange, routing_key),
            (_, _, Some(death)) => (death.exchange.clone(), death.routing_key.clone()),
            _ => (String::new(), queue.to_owned()),
        };
        let envelope_id = match header_id(&message) {
            Some(_) => None,
            None => Envelope::from_json(message.body.clone()).ok().map(|e| e.id.to_string()),
        };
        Self { message, queue: queue.to_owned(), exchange, routing_key, death, envelope_id }
    }

    /// The message's id as it stands in the property, in a header or in the envelope, whichever
    /// has one first. It may be one that mmate would not accept, or none at all: that may be why
    /// the message is here.
    #[must_use]
    pub fn message_id(&self) -> Option<&str> {
        header_id(&self.message).or(self.envelope_id.as_deref())
    }

    /// Why it was given up, in one word: one of [`DeadReason`](crate::DeadReason), or the broker's
    /// own word if the broker did it, such as `delivery_limit`. `unknown` if nothing says.
    #[must_use]
    pub fn reason(&self) -> &str {
        match &self.death {
            Some(death) => &death.reason,
            None => self.text(wire::REASON).unwrap_or("unknown"),
        }
    }

    /// Whether the broker gave it up by itself, as it does with a message that kills whoever
    /// handles it.
    #[must_use]
    pub fn is_by_broker(&self) -> bool {
        self.death.is_some()
    }

    /// The last error's text, if a handler failed.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.text(wire::ERROR)
    }

    /// How many attempts at handling it were made and noted. A process that died noted nothing.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.count(wire::ATTEMPTS)
    }

    /// How often it was replayed before.
    #[must_use]
    pub fn replays(&self) -> u32 {
        self.count(wire::REPLAYS)
    }

    /// The id it had before it was last replayed [as new](crate::Replaying::as_new).
    #[must_use]
    pub fn replay_of(&self) -> Option<&str> {
        self.text(wire::REPLAY_OF)
    }

    /// When handling it first failed.
    #[must_use]
    pub fn first_failed_at(&self) -> Option<SystemTime> {
        self.text(wire::FIRST_FAILED_AT).and_then(time_from_text)
    }

    /// When it was given up.
    #[must_use]
    pub fn died_at(&self) -> Option<SystemTime> {
        match &self.death {
            Some(death) => death.at,
            None => self.text(wire::DEAD_AT).and_then(time_from_text),
        }
    }

    /// The queue it was taken from, and is replayed to.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The exchange it was published to; empty if it was sent to its queue by name.
    #[must_use]
    pub fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The routing key it was published with.
    #[must_use]
    pub fn routing_key(&self) -> &str {
        &self.routing_key
    }

    /// The message's type, if it says one.
    #[must_use]
    pub fn message_type(&self) -> Option<&str> {
        let property = self.message.properties.message_type.as_deref();
        property.or_else(|| self.text(wire::MESSAGE_TYPE))
    }

    /// The whole message, with properties and headers.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The body's bytes.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.message.body
    }

    /// The body as an envelope.
    ///
    /// # Errors
    /// When it is none, which may be why the message is here.
    pub fn envelope(&self) -> Result<Envelope, DecodeError> {
        Envelope::from_json(self.message.body.clone())
    }

    fn text(&self, header: &str) -> Option<&str> {
        self.message.headers.text(header)
    }

    fn count(&self, header: &str) -> u32 {
        let said = self.message.headers.int(header).unwrap_or_default();
        u32::try_from(said.max(0)).unwrap_or(u32::MAX)
    }
}

/// The id that properties or headers have, unchecked.
fn header_id(message: &Message) -> Option<&str> {
    let in_header = |name| message.headers.text(name);
    let property = message.properties.message_id.as_deref();
    let places = [property, in_header(wire::MESSAGE_ID), in_header(wire::MESSAGE_ID_PLAIN)];
    places.into_iter().flatten().find(|id| !id.is_empty())
}

/// The broker's note on why the message left its queue, unless we noted something later: a message
/// that waited for a retry has notes of the broker's too, of the delay queue.
/// The part that the letter comes from, if the queue is parted; else the queue itself. What a
/// letter says is no way into any other queue.
fn part<'a>(message: &'a Message, deaths: &'a [Death], queue: &'a str) -> &'a str {
    let is_part = |name: &&str| {
        let number = name.strip_prefix(queue).and_then(|rest| rest.strip_prefix('.'));
        number.is_some_and(|number| number.parse::<u16>().is_ok())
    };
    let by_broker = || deaths.iter().map(|death| death.queue.as_str()).find(is_part);
    let noted = message.headers.text(wire::QUEUE);
    if noted == Some(queue) {
        return queue;
    }
    noted.filter(is_part).or_else(by_broker).unwrap_or(queue)
}

fn newest_by_broker<'a>(message: &Message, deaths: &'a [Death], queue: &str) -> Option<&'a Death> {
    let here = deaths.iter().find(|death| death.queue == queue);
    if message.headers.text(wire::REASON).is_none() {
        return here.or_else(|| deaths.first());
    }
    let ours = message.headers.text(wire::DEAD_AT).and_then(time_from_text);
    // The broker's times have no fractions.
    let later = |death: &&Death| match (death.at, ours) {
        (Some(theirs), Some(ours)) => theirs + Duration::from_secs(1) > ours,
        _ => false,
    };
    here.filter(later)
}
