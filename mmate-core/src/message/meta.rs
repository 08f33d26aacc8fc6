//! What is known of a message before its body is decoded.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use super::headers::HeaderValue;
use super::id::{CorrelationId, InvalidId, MessageId};
use super::raw::Message;
use super::wire;

/// What a message is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the wire format knows these four and no other")]
pub enum MessageKind {
    /// Something happened; anybody may listen.
    Event,
    /// Somebody is told to do something.
    Command,
    /// Somebody is asked for something.
    Query,
    /// The answer to a command or a query.
    Reply,
}

impl MessageKind {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Command => "command",
            Self::Query => "query",
            Self::Reply => "reply",
        }
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MessageKind {
    type Err = ();
    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "event" => Ok(Self::Event),
            "command" => Ok(Self::Command),
            "query" => Ok(Self::Query),
            "reply" => Ok(Self::Reply),
            _ => Err(()),
        }
    }
}

/// What properties and headers say of a message, without a look into its body.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Meta {
    /// The message's id, if properties or headers have one.
    pub id: Option<MessageId>,
    /// The message's type, such as `OrderCreated`.
    pub message_type: Option<String>,
    /// Event, command, query or reply.
    pub kind: Option<MessageKind>,
    /// The conversation it belongs to; for a request, what its reply is matched by.
    pub correlation_id: Option<CorrelationId>,
    /// The conversation that a request belongs to, if its correlation id does not name it.
    pub conversation: Option<CorrelationId>,
    /// When it was made, to the second.
    pub timestamp: Option<SystemTime>,
    /// The queue that a reply goes to.
    pub reply_to: Option<String>,
    /// The service that published it.
    pub source: Option<String>,
}

/// Why a message's properties and headers cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Two places name different ids.
    #[error("{first_place} says the message id is {first:?}, {second_place} says {second:?}")]
    IdsDiffer {
        /// Where the first id stands.
        first_place: &'static str,
        /// The first id.
        first: String,
        /// Where the second id stands.
        second_place: &'static str,
        /// The second id.
        second: String,
    },
    /// An id cannot be one.
    #[error("{place} has an unusable message id: {source}")]
    Id {
        /// Where it stands.
        place: &'static str,
        /// What is wrong with it.
        source: InvalidId,
    },
    /// An id is not text.
    #[error("{place} is not text")]
    NotText {
        /// The header.
        place: &'static str,
    },
    /// The correlation id cannot be one.
    #[error("the correlation id is unusable: {0}")]
    Correlation(#[source] InvalidId),
}

impl Meta {
    /// Reads properties and headers. The id comes from the property `message_id`, the header
    /// `x-message-id` or the header `message-id`; where two of them are given they must agree.
    ///
    /// # Errors
    /// [`Malformed`] says what contradicts what, or what cannot be an id.
    pub fn read(message: &Message) -> Result<Self, Malformed> {
        let properties = &message.properties;
        let header_text = |names: [&str; 2]| {
            names
                .into_iter()
                .filter_map(|name| message.headers.text(name))
                .find(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let given = |property: &Option<String>| property.clone().filter(|text| !text.is_empty());
        let correlation_id = given(&properties.correlation_id)
            .or_else(|| header_text([wire::CORRELATION_ID, wire::CORRELATION_ID_PLAIN]))
            .map(CorrelationId::parse)
            .transpose()
            .map_err(Malformed::Correlation)?;
        Ok(Self {
            id: read_id(message)?,
            message_type: given(&properties.message_type)
                .or_else(|| header_text([wire::MESSAGE_TYPE, wire::MESSAGE_TYPE_PLAIN])),
            kind: message.headers.text(wire::MESSAGE_KIND).and_then(|word| word.parse().ok()),
            correlation_id,
            // Of no use to the handling itself, so an unusable one is as good as none.
            conversation: message
                .headers
                .text(wire::CONVERSATION)
                .and_then(|text| CorrelationId::parse(text).ok()),
            timestamp: properties.timestamp,
            reply_to: given(&properties.reply_to),
            source: given(&properties.app_id).or_else(|| header_text([wire::SOURCE, "source"])),
        })
    }
}

fn read_id(message: &Message) -> Result<Option<MessageId>, Malformed> {
    let mut found: Option<(&'static str, &str)> = None;
    let places = [
        ("the property message_id", None),
        ("the header x-message-id", Some(wire::MESSAGE_ID)),
        ("the header message-id", Some(wire::MESSAGE_ID_PLAIN)),
    ];
    for (place, header) in places {
        let text = match header {
            None => message.properties.message_id.as_deref(),
            Some(name) => match message.headers.value(name) {
                None => None,
                Some(HeaderValue::Text(text)) => Some(text.as_str()),
                Some(_) => return Err(Malformed::NotText { place }),
            },
        };
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        match found {
            None => found = Some((place, text)),
            Some((_, first)) if first == text => {}
            Some((first_place, first)) => {
                return Err(Malformed::IdsDiffer {
                    first_place,
                    first: first.to_owned(),
                    second_place: place,
                    second: text.to_owned(),
                });
            }
        }
    }
    let Some((place, text)) = found else { return Ok(None) };
    MessageId::parse(text).map(Some).map_err(|source| Malformed::Id { place, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(property: Option<&str>, header: Option<&str>, plain: Option<&str>) -> Message {
        let mut message = Message::default();
        message.properties.message_id = property.map(str::to_owned);
        if let Some(text) = header {
            message.headers.insert(wire::MESSAGE_ID, text);
        }
        if let Some(text) = plain {
            message.headers.insert(wire::MESSAGE_ID_PLAIN, text);
        }
        message
    }

    #[test]
    fn the_id_is_found_in_each_of_its_three_places() {
        for m in [
            message(Some("a"), None, None),
            message(None, Some("a"), None),
            message(None, None, Some("a")),
            message(Some("a"), Some("a"), Some("a")),
            message(Some(""), None, Some("a")),
        ] {
            assert_eq!(Meta::read(&m).unwrap().id.unwrap().as_str(), "a");
        }
        assert_eq!(Meta::read(&Message::default()).unwrap().id, None);
    }

    #[test]
    fn two_places_that_differ_are_told_by_name() {
        let error = Meta::read(&message(Some("a"), None, Some("b"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the property message_id says the message id is \"a\", \
             the header message-id says \"b\""
        );
    }

    #[test]
    fn an_id_that_is_a_number_or_has_control_characters_is_malformed() {
        let mut numbered = Message::default();
        numbered.headers.insert(wire::MESSAGE_ID, 7_i64);
        assert!(matches!(Meta::read(&numbered), Err(Malformed::NotText { .. })));
        assert!(matches!(Meta::read(&message(Some("a\0"), None, None)), Err(Malformed::Id { .. })));
    }
}
