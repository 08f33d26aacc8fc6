//! A message on its way out, in lapin's words.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::message::BasicReturnMessage;
use lapin::types::ShortString;
use mmate_core::transport::{Destination, Publication, PublishError};

use crate::convert::{self, short};

/// A message on its way out. What is sent again after a cut is the same in every byte.
#[derive(Debug)]
pub(crate) struct Parcel {
    exchange: ShortString,
    routing_key: ShortString,
    mandatory: bool,
    properties: BasicProperties,
    body: Bytes,
}

impl Parcel {
    /// # Errors
    /// What does not fit on the wire.
    pub(crate) fn of(publication: &Publication) -> Result<Self, PublishError> {
        let Publication { destination, message, mandatory, .. } = publication;
        let made = || {
            let (exchange, routing_key) = match destination {
                Destination::Exchange { name, topic } => (name.as_str(), topic.as_str()),
                Destination::Queue(name) => ("", name.as_str()),
                _ => return Err("this transport knows no such destination".to_owned()),
            };
            Ok(Self {
                exchange: short("exchange's name", exchange)?,
                routing_key: short("routing key", routing_key)?,
                mandatory: *mandatory,
                properties: convert::properties(message)?,
                body: message.body.clone(),
            })
        };
        made().map_err(|reason| {
            let destination = destination.to_string();
            PublishError::Refused { destination, reason: format!("it was not sent: {reason}") }
        })
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
        })
    }

    pub(super) fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    /// Whether it is an error if no queue takes it.
    pub(super) fn mandatory(&self) -> bool {
        self.mandatory
    }

    /// Where it goes, for people.
    pub(super) fn destination(&self) -> String {
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
        self.mandatory
            && self.exchange == returned.exchange
            && self.routing_key == returned.routing_key
            && self.properties.message_id() == returned.properties.message_id()
            && self.body == returned.data
            // Compared as text, since a float that is no number is not equal to itself.
            && (self.properties == returned.properties
                || format!("{:?}", self.properties) == format!("{:?}", returned.properties))
    }
}
