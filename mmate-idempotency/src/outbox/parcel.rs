//! A message between a handler and the broker: what goes into a row, and what comes out of it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use mmate_core::message::Properties;
use mmate_core::transport::{Destination, Publication};
use mmate_core::{BoxError, HeaderValue, Message, MessageId, Topic};
use serde::{Deserialize, Serialize};

use super::database::NewRow;

/// All of a message but its body.
#[derive(Serialize, Deserialize)]
struct Head {
    to: To,
    mandatory: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    delay: Option<Duration>,
    #[serde(flatten)]
    properties: Fields,
    headers: BTreeMap<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum To {
    Exchange { name: String, topic: String },
    Queue(String),
}

#[derive(Serialize, Deserialize)]
struct Fields {
    content_type: Option<String>,
    message_id: Option<String>,
    correlation_id: Option<String>,
    message_type: Option<String>,
    timestamp: Option<SystemTime>,
    reply_to: Option<String>,
    app_id: Option<String>,
    priority: Option<u8>,
    expires_after: Option<Duration>,
    persistent: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Value {
    Text(String),
    Int(i64),
    /// Its bits: JSON has no infinity.
    Float(u64),
    Bool(bool),
    Bytes(Vec<u8>),
}

/// The row of a message.
pub(super) fn pack(
    id: &MessageId,
    publication: Publication,
    key: Option<String>,
) -> Result<NewRow, BoxError> {
    let destination = publication.destination.to_string();
    let message = publication.message;
    let to = match publication.destination {
        Destination::Exchange { name, topic } => {
            To::Exchange { name, topic: topic.as_str().to_owned() }
        }
        Destination::Queue(name) => To::Queue(name),
        _ => return Err("the outbox does not know this kind of destination".into()),
    };
    let headers: Result<_, BoxError> = message
        .headers
        .iter()
        .map(|(name, value)| Ok((name.clone(), pack_value(value)?)))
        .collect();
    let head = Head {
        to,
        mandatory: publication.mandatory,
        delay: publication.delay,
        properties: Fields::from(message.properties),
        headers: headers?,
    };
    Ok(NewRow {
        message_id: id.as_str().to_owned(),
        message_type: head.properties.message_type.clone().unwrap_or_default(),
        destination,
        key,
        head: serde_json::to_string(&head)?,
        body: message.body.to_vec(),
    })
}

/// The message of a row. Where it names no service that publishes it, this one does.
pub(super) fn unpack(head: &str, body: Vec<u8>, source: &str) -> Result<Publication, BoxError> {
    let head: Head = serde_json::from_str(head)?;
    let destination = match head.to {
        To::Exchange { name, topic } => Destination::Exchange { name, topic: Topic::new(topic)? },
        To::Queue(name) => Destination::Queue(name),
    };
    let mut message = Message::new(body);
    message.properties = head.properties.into();
    message.headers = head.headers.into_iter().map(|(name, v)| (name, unpack_value(v))).collect();
    if message.properties.app_id.as_deref().unwrap_or_default().is_empty() {
        message.properties.app_id = Some(source.to_owned());
        message.headers.insert(mmate_core::message::wire::SOURCE, source);
    }
    let mut publication = Publication::new(destination, message);
    publication.mandatory = head.mandatory;
    publication.delay = head.delay;
    Ok(publication)
}

fn pack_value(value: &HeaderValue) -> Result<Value, BoxError> {
    Ok(match value {
        HeaderValue::Text(text) => Value::Text(text.clone()),
        HeaderValue::Int(n) => Value::Int(*n),
        HeaderValue::Float(x) => Value::Float(x.to_bits()),
        HeaderValue::Bool(b) => Value::Bool(*b),
        HeaderValue::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
        _ => return Err("the outbox does not know this kind of header".into()),
    })
}

fn unpack_value(value: Value) -> HeaderValue {
    match value {
        Value::Text(text) => HeaderValue::Text(text),
        Value::Int(n) => HeaderValue::Int(n),
        Value::Float(bits) => HeaderValue::Float(f64::from_bits(bits)),
        Value::Bool(b) => HeaderValue::Bool(b),
        Value::Bytes(bytes) => HeaderValue::Bytes(bytes.into()),
    }
}

impl From<Properties> for Fields {
    fn from(properties: Properties) -> Self {
        Self {
            content_type: properties.content_type,
            message_id: properties.message_id,
            correlation_id: properties.correlation_id,
            message_type: properties.message_type,
            timestamp: properties.timestamp,
            reply_to: properties.reply_to,
            app_id: properties.app_id,
            priority: properties.priority,
            expires_after: properties.expires_after,
            persistent: properties.persistent,
        }
    }
}

impl From<Fields> for Properties {
    fn from(fields: Fields) -> Self {
        let mut properties = Self::default();
        properties.content_type = fields.content_type;
        properties.message_id = fields.message_id;
        properties.correlation_id = fields.correlation_id;
        properties.message_type = fields.message_type;
        properties.timestamp = fields.timestamp;
        properties.reply_to = fields.reply_to;
        properties.app_id = fields.app_id;
        properties.priority = fields.priority;
        properties.expires_after = fields.expires_after;
        properties.persistent = fields.persistent;
        properties
    }
}

#[cfg(test)]
mod tests {
    use mmate_core::Outgoing;

    use super::*;

    fn packed(message: Outgoing, source: &str) -> (Publication, NewRow) {
        let (id, publication) = message.prepare(source).unwrap();
        let row = pack(&id, publication.clone(), None).unwrap();
        (publication, row)
    }

    #[test]
    fn what_comes_out_of_a_row_is_what_went_in() {
        let message = Outgoing::event("order.created.eu", "OrderCreated", &7)
            .id_text("a 🦀")
            .reply_to("answers")
            .priority(3)
            .delay(Duration::from_millis(1_500))
            .allow_unroutable()
            .header("text", "\u{1}ü")
            .header("int", i64::MIN)
            .header("float", f64::INFINITY)
            .header("bool", true)
            .header("bytes", HeaderValue::Bytes(vec![0, 255].into()));
        let (before, row) = packed(message, "shop");
        assert_eq!((row.message_id.as_str(), row.message_type.as_str()), ("a 🦀", "OrderCreated"));
        let after = unpack(&row.head, row.body, "another").unwrap();
        assert_eq!(after.destination, before.destination);
        assert_eq!(after.message.properties, before.message.properties);
        assert_eq!(after.message.headers, before.message.headers);
        assert_eq!(after.message.body, before.message.body);
        assert_eq!((after.mandatory, after.delay), (before.mandatory, before.delay));
    }

    #[test]
    fn a_message_straight_into_a_queue_stays_one() {
        let (before, row) = packed(Outgoing::to_queue("q", "Work", &1), "shop");
        assert_eq!(unpack(&row.head, row.body, "").unwrap().destination, before.destination);
    }

    #[test]
    fn a_message_of_nobody_is_published_in_the_name_of_who_sends_it() {
        let (_, row) = packed(Outgoing::to_queue("q", "Work", &1), "");
        let publication = unpack(&row.head, row.body, "sender").unwrap();
        assert_eq!(publication.message.properties.app_id.as_deref(), Some("sender"));
        assert_eq!(publication.message.headers.text("x-source"), Some("sender"));
    }
}
