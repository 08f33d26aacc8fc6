//! The JSON envelope in a message's body.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::headers::{HeaderValue, Headers};
use super::id::{CausationId, CorrelationId, InvalidId, MessageId};
use super::timestamp;

/// What stands in a message's body: who it is, and its payload.
///
/// The payload stays raw JSON until somebody asks for a type, so numbers above 2^53 survive and a
/// duplicate costs no decoding.
///
/// ```
/// use mmate_core::Envelope;
/// let body = br#"{"id":"7","type":"OrderCreated","timestamp":"2026-11-21T09:01:13Z","payload":{"big":9007199254740993}}"#;
/// let envelope = Envelope::from_json(body.to_vec())?;
/// assert_eq!(envelope.message_type, "OrderCreated");
/// #[derive(serde::Deserialize)]
/// struct Payload { big: u64 }
/// assert_eq!(envelope.payload::<Payload>()?.big, 9_007_199_254_740_993);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Envelope {
    /// The message's id.
    pub id: MessageId,
    /// What kind of thing the payload is, such as `OrderCreated`.
    pub message_type: String,
    /// When the message was made; absent if the text was no RFC 3339 time.
    pub timestamp: Option<SystemTime>,
    /// The conversation it belongs to.
    pub correlation_id: Option<CorrelationId>,
    /// The message that caused it; absent at the start of a chain.
    pub causation_id: Option<CausationId>,
    /// The queue that a reply goes to. Also read from `payload.replyTo`, where mmate for Go
    /// writes it.
    pub reply_to: Option<String>,
    /// The envelope's own headers.
    pub headers: Headers,
    pub(super) payload: Bytes,
}

/// Why a body is not an envelope, or a payload not of the type asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body is not JSON, or JSON of another shape.
    #[error("the body is not a message envelope")]
    Envelope(#[source] serde_json::Error),
    /// The envelope has no `id`, `type` or `payload`.
    #[error("the envelope has no {0:?}")]
    Missing(&'static str),
    /// An id in the envelope cannot be one.
    #[error("the envelope's {field:?} is not usable")]
    Id {
        /// The envelope's field.
        field: &'static str,
        /// What is wrong with it.
        source: InvalidId,
    },
    /// The payload is of another shape than the type that was asked for.
    #[error("the payload of the {message_type:?} is not a {wanted}")]
    Payload {
        /// The envelope's type.
        message_type: String,
        /// The Rust type that was asked for.
        wanted: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
}

impl Envelope {
    /// A new envelope around a payload, made now.
    ///
    /// # Errors
    /// When the payload cannot be written as JSON.
    pub fn new<T: Serialize + ?Sized>(
        id: MessageId,
        message_type: impl Into<String>,
        payload: &T,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id,
            message_type: message_type.into(),
            timestamp: Some(SystemTime::now()),
            correlation_id: None,
            causation_id: None,
            reply_to: None,
            headers: Headers::new(),
            payload: serde_json::to_vec(payload)?.into(),
        })
    }

    /// Reads an envelope. The payload is a slice of the body, not a copy. Unknown fields are
    /// ignored, and keys may be of any case (an exact one wins).
    ///
    /// # Errors
    /// [`DecodeError`] when the body is not an envelope.
    pub fn from_json(body: impl Into<Bytes>) -> Result<Self, DecodeError> {
        let body = body.into();
        let fields: Fields<'_> = serde_json::from_slice(&body).map_err(DecodeError::Envelope)?;
        let id = fields.id.filter(|id| !id.is_empty()).ok_or(DecodeError::Missing("id"))?;
        let id =
            MessageId::parse(&*id).map_err(|source| DecodeError::Id { field: "id", source })?;
        let correlation_id = fields
            .correlation_id
            .filter(|id| !id.is_empty())
            .map(|id| CorrelationId::parse(&*id))
            .transpose()
            .map_err(|source| DecodeError::Id { field: "correlationId", source })?;
        let causation_id = fields
            .causation_id
            .filter(|id| !id.is_empty())
            .map(|id| CausationId::parse(&*id))
            .transpose()
            .map_err(|source| DecodeError::Id { field: "causationId", source })?;
        let message_type = fields.message_type.filter(|t| !t.is_empty());
        let payload = fields.payload.ok_or(DecodeError::Missing("payload"))?.get();
        let reply_to = fields.reply_to.filter(|r| !r.is_empty()).map(Cow::into_owned);
        Ok(Self {
            id,
            message_type: message_type.ok_or(DecodeError::Missing("type"))?.into_owned(),
            timestamp: fields.timestamp.as_deref().and_then(timestamp::from_text),
            correlation_id,
            causation_id,
            reply_to: reply_to.or_else(|| reply_to_in_payload(payload)),
            headers: fields.headers.0,
            payload: body.slice_ref(payload.as_bytes()),
        })
    }

    /// Writes the envelope as JSON, with the keys of the wire format.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let mut json = Vec::with_capacity(self.payload.len() + 256);
        // Writing into memory cannot fail, and each value here is representable in JSON.
        serde_json::to_writer(&mut json, self).expect("an envelope is representable in JSON");
        json.into()
    }

    /// The payload as a type. A type that knows no `replyTo` does not see the reply address of a
    /// request that stands in its payload, also if it denies unknown fields.
    ///
    /// # Errors
    /// [`DecodeError::Payload`] when it is of another shape.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        serde_json::from_slice(&self.payload).or_else(|source| {
            let without = self.reply_to.as_ref().and_then(|_| self.payload_without("replyTo"));
            without.ok_or_else(|| DecodeError::Payload {
                message_type: self.message_type.clone(),
                wanted: std::any::type_name::<T>(),
                source,
            })
        })
    }

    /// The payload as a type, without a field that was written into it on the way: what is sent in
    /// it for others is not seen by a strict type.
    pub(crate) fn payload_without<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        let mut fields: BTreeMap<String, &RawValue> = serde_json::from_slice(&self.payload).ok()?;
        fields.remove(field)?;
        serde_json::from_slice(&serde_json::to_vec(&fields).ok()?).ok()
    }

    /// The payload as raw JSON text.
    #[must_use]
    pub fn raw_payload(&self) -> &Bytes {
        &self.payload
    }
}

/// The Go side puts the reply address into the payload. Only objects that name it are looked into.
fn reply_to_in_payload(payload: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct ReplyTo<'a> {
        #[serde(borrow, rename = "replyTo")]
        reply_to: Option<Cow<'a, str>>,
    }
    if !payload.contains("\"replyTo\"") {
        return None;
    }
    let found: ReplyTo<'_> = serde_json::from_str(payload).ok()?;
    found.reply_to.filter(|r| !r.is_empty()).map(Cow::into_owned)
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", self.id.as_str())?;
        map.serialize_entry("type", &self.message_type)?;
        if let Some(time) = self.timestamp {
            map.serialize_entry("timestamp", &timestamp::to_text(time))?;
        }
        if let Some(id) = &self.correlation_id {
            map.serialize_entry("correlationId", id.as_str())?;
        }
        if let Some(id) = &self.causation_id {
            map.serialize_entry("causationId", id.as_str())?;
        }
        if let Some(queue) = &self.reply_to {
            map.serialize_entry("replyTo", queue)?;
        }
        if !self.headers.is_empty() {
            map.serialize_entry("headers", &JsonHeaders(&self.headers))?;
        }
        let payload = std::str::from_utf8(&self.payload).map_err(serde::ser::Error::custom)?;
        let payload: &RawValue =
            serde_json::from_str(payload).map_err(serde::ser::Error::custom)?;
        map.serialize_entry("payload", payload)?;
        map.end()
    }
}

struct JsonHeaders<'a>(&'a Headers);

impl Serialize for JsonHeaders<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0 {
            match value {
                HeaderValue::Text(text) => map.serialize_entry(name, text)?,
                HeaderValue::Int(n) => map.serialize_entry(name, n)?,
                HeaderValue::Float(x) => map.serialize_entry(name, x)?,
                HeaderValue::Bool(b) => map.serialize_entry(name, b)?,
                HeaderValue::Bytes(_) => {}
            }
        }
        map.end()
    }
}

/// An envelope's fields as they stand in the JSON.
#[derive(Default)]
struct Fields<'a> {
    id: Option<Cow<'a, str>>,
    message_type: Option<Cow<'a, str>>,
    timestamp: Option<Cow<'a, str>>,
    correlation_id: Option<Cow<'a, str>>,
    causation_id: Option<Cow<'a, str>>,
    reply_to: Option<Cow<'a, str>>,
    headers: ParsedHeaders,
    payload: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

const NAMES: [&str; 8] =
    ["id", "type", "timestamp", "correlationId", "causationId", "replyTo", "headers", "payload"];

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope: an object with id, type and payload")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        let mut exact_seen = [false; NAMES.len()];
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let key: &str = &key.0;
            let Some(field) = NAMES.iter().position(|name| key.eq_ignore_ascii_case(name)) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let exact = key == NAMES[field];
            if exact_seen[field] && !exact {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            exact_seen[field] |= exact;
            match NAMES[field] {
                "id" => fields.id = text(&mut map)?,
                "type" => fields.message_type = text(&mut map)?,
                // A time that is not even text is as good as an unparsable one.
                "timestamp" => fields.timestamp = map.next_value::<AnyText<'de>>()?.0,
                "correlationId" => fields.correlation_id = text(&mut map)?,
                "causationId" => fields.causation_id = text(&mut map)?,
                "replyTo" => fields.reply_to = text(&mut map)?,
                "headers" => fields.headers = map.next_value::<Option<_>>()?.unwrap_or_default(),
                _ => fields.payload = Some(map.next_value()?),
            }
        }
        Ok(fields)
    }
}

fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
    Ok(map.next_value::<Option<Key<'de>>>()?.map(|key| key.0))
}

/// A text, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// A text, or any other value, which is dropped.
struct AnyText<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for AnyText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str::<Key<'de>>(raw.get()).ok().map(|key| key.0)))
    }
}

#[derive(Default)]
struct ParsedHeaders(Headers);

impl<'de> Deserialize<'de> for ParsedHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde_json::Value;
        let map = serde_json::Map::deserialize(deserializer)?;
        let mut headers = Headers::new();
        for (name, value) in map {
            let value = match value {
                Value::String(text) => HeaderValue::Text(text),
                Value::Bool(b) => HeaderValue::Bool(b),
                Value::Number(n) => match n.as_i64() {
                    Some(n) => HeaderValue::Int(n),
                    None => HeaderValue::Float(n.as_f64().unwrap_or(f64::NAN)),
                },
                // The wire format has strings, numbers and booleans; others are not for us.
                Value::Null | Value::Array(_) | Value::Object(_) => continue,
            };
            headers.insert(name, value);
        }
        Ok(Self(headers))
    }
}
