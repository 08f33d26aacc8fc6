//! A message on its way out, in lapin's words.

use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::BasicReturnMessage;
use lapin::types::ShortString;
use mmate_core::transport::{Destination, Publication, PublishError};

use crate::convert::{self, short};
use crate::topology::{Rung, Target, Waiting};

/// A message on its way out. What is sent again after a cut is the same in every byte.
#[derive(Debug)]
pub(crate) struct Parcel {
    exchange: ShortString,
    routing_key: ShortString,
    mandatory: bool,
    properties: BasicProperties,
    body: Bytes,
    /// Where it waits first, if it is published for later.
    waiting: Option<Waiting>,
}

impl Parcel {
    /// # Errors
    /// What does not fit on the wire.
    pub(crate) fn of(publication: &Publication) -> Result<Self, PublishError> {
        publication.check_delay(Some(Rung::longest().duration()))?;
        let Publication { destination, message, mandatory, delay, .. } = publication;
        let made = || {
            let (exchange, routing_key) = match destination {
                Destination::Exchange { name, topic } => (name.as_str(), topic.as_str()),
                Destination::Queue(name) => ("", name.as_str()),
                _ => return Err("this transport knows no such destination".to_owned()),
            };
            let parcel = Self {
                exchange: short("exchange's name", exchange)?,
                routing_key: short("routing key", routing_key)?,
                mandatory: *mandatory,
                properties: convert::properties(message)?,
                body: message.body.clone(),
                waiting: None,
            };
            match delay {
                None => Ok(parcel),
                Some(delay) => parcel.later(*delay),
            }
        };
        made().map_err(|reason| {
            let destination = destination.to_string();
            PublishError::Refused { destination, reason: format!("it was not sent: {reason}") }
        })
    }

    /// The same, by way of a queue that it waits in.
    fn later(self, delay: Duration) -> Result<Self, String> {
        let rung = Rung::of(delay);
        let (exchange, key) = (self.exchange.to_string(), self.routing_key.to_string());
        let target = match exchange.is_empty() {
            true => Target::Queue(key),
            false => Target::Exchange(exchange),
        };
        let waiting = Waiting { target, rung };
        let name = short("name of the queue that it waits in", &waiting.name())?;
        let (exchange, routing_key) = match waiting.target {
            Target::Queue(_) => (ShortString::default(), name),
            Target::Exchange(_) => (name, self.routing_key),
        };
        let properties = self.properties.with_expiration(rung.expiration(delay).into());
        Ok(Self { exchange, routing_key, properties, waiting: Some(waiting), ..self })
    }

    /// A copy of a received message, which must reach a queue.
    ///
    /// # Errors
    /// What does not fit on the wire.
    pub(crate) fn copy(
        exchange: &str,
        routing_key: &str,
        properties: BasicProperties,
        body: Bytes,
    ) -> Result<Self, String> {
        convert::check_headers(&properties)?;
        Ok(Self {
            exchange: short("exchange's name", exchange)?,
            routing_key: short("routing key", routing_key)?,
            mandatory: true,
            properties,
            body,
            waiting: None,
        })
    }

    pub(super) fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    /// Whether the broker shall say if no queue takes it.
    pub(super) fn mandatory(&self) -> bool {
        // If the queue that it waits in is gone, we want to know in any case.
        self.mandatory || self.waiting.is_some()
    }

    /// Whether it is an error if no queue takes it in the end.
    pub(super) fn may_not_vanish(&self) -> bool {
        self.mandatory
    }

    /// Where it waits first, if it is published for later.
    pub(super) fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref()
    }

    /// Where it goes, for people.
    pub(super) fn destination(&self) -> String {
        match &self.waiting {
            Some(Waiting { target: Target::Queue(name), .. }) => return format!("queue {name}"),
            Some(Waiting { target: Target::Exchange(name), .. }) => {
                return format!("topic {} of exchange {name}", self.routing_key);
            }
            None => {}
        }
        match self.exchange.as_str() {
            "" => format!("queue {}", self.routing_key),
            exchange => format!("topic {} of exchange {exchange}", self.routing_key),
        }
    }

    pub(super) fn parts(&self) -> (ShortString, ShortString, &[u8], BasicProperties) {
        (self.exchange.clone(), self.routing_key.clone(), &self.body, self.properties.clone())
    }

    /// Whether the broker returned this one, or one that cannot be told from it.
    pub(super) fn is(&self, returned: &BasicReturnMessage) -> bool {
        self.mandatory()
            && self.exchange == returned.exchange
            && self.routing_key == returned.routing_key
            && self.properties.message_id() == returned.properties.message_id()
            && self.body == returned.data
            // Compared as text, since a float that is no number is not equal to itself.
            && (self.properties == returned.properties
                || format!("{:?}", self.properties) == format!("{:?}", returned.properties))
    }
}
