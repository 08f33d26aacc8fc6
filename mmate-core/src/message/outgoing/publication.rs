//! What a message to publish is on the wire.

use std::time::SystemTime;

use serde_json::Value;

use super::{InvalidMessage, MAX_HEADER_BYTES, Outgoing, with_field};
use crate::message::envelope::Envelope;
use crate::message::headers::{HeaderValue, Headers};
use crate::message::id::{CorrelationId, MAX_ID_BYTES, MessageId};
use crate::message::raw::{Message, Properties};
use crate::message::wire;
use crate::transport::Publication;

impl Outgoing {
    /// Makes what would go on the wire, in the name of a service, without publishing it; a
    /// [`Publisher`](crate::Publisher) publishes it with
    /// [`publish_prepared`](crate::Publisher::publish_prepared). The message's id comes with it.
    ///
    /// For programs that keep messages before they are published. In a handler,
    /// [`Publisher::prepare`](crate::Publisher::prepare) also gives the message its place in the
    /// conversation.
    ///
    /// # Errors
    /// When the message cannot be published as it is.
    pub fn prepare(self, source: &str) -> Result<(MessageId, Publication), InvalidMessage> {
        self.into_publication(source)
    }

    /// What goes on the wire, and the message's id.
    pub(crate) fn into_publication(
        self,
        source: &str,
    ) -> Result<(MessageId, Publication), InvalidMessage> {
        let destination = self.target?;
        let message_type = self.message_type;
        if message_type.is_empty() || message_type.len() > MAX_ID_BYTES {
            return Err(InvalidMessage::Type { message_type });
        }
        let id = self.id.transpose()?.unwrap_or_else(MessageId::generate);
        let payload = self.payload.map_err(|source| InvalidMessage::Payload {
            message_type: message_type.clone(),
            source,
        })?;
        let correlation_id = self.correlation_id.unwrap_or_else(|| CorrelationId::from(&id));
        let now = SystemTime::now();

        let mut headers = self.headers.clone();
        for (name, value) in [
            (wire::MESSAGE_ID, id.as_str()),
            (wire::MESSAGE_TYPE, message_type.as_str()),
            (wire::MESSAGE_KIND, self.kind.as_str()),
            (wire::CORRELATION_ID, correlation_id.as_str()),
            (wire::SOURCE, source),
            (wire::VERSION, wire::WIRE_VERSION),
        ] {
            headers.insert(name, value);
        }
        if self.hops > 0 {
            headers.insert(wire::HOPS, i64::from(self.hops));
        }
        if let Some(conversation) = &self.conversation {
            headers.insert(wire::CONVERSATION, conversation.as_str());
        }
        let bytes = header_bytes(&headers);
        if bytes > MAX_HEADER_BYTES {
            return Err(InvalidMessage::Headers { bytes, limit: MAX_HEADER_BYTES });
        }

        let properties = Properties {
            content_type: Some(wire::CONTENT_TYPE.to_owned()),
            message_id: Some(id.as_str().to_owned()),
            correlation_id: Some(correlation_id.as_str().to_owned()),
            message_type: Some(message_type.clone()),
            timestamp: Some(now),
            reply_to: self.reply_to.clone(),
            app_id: Some(source.to_owned()),
            priority: self.priority,
            expires_after: self.expires_after,
            persistent: true,
        };
        let envelope = Envelope {
            id: id.clone(),
            message_type,
            timestamp: Some(now),
            correlation_id: Some(correlation_id),
            causation_id: self.causation_id,
            // mmate for Go reads the reply address from the payload: an object payload gets it.
            payload: match self.reply_to.as_deref() {
                Some(reply_to) => with_field(payload, "replyTo", &Value::from(reply_to)),
                None => payload,
            },
            reply_to: self.reply_to,
            headers: self.headers,
        };
        let message = Message { properties, headers, body: envelope.to_json() };
        let mut publication = Publication::new(destination, message);
        publication.mandatory = self.mandatory;
        publication.delay = self.delay;
        Ok((id, publication))
    }
}

fn header_bytes(headers: &Headers) -> usize {
    headers
        .iter()
        .map(|(name, value)| {
            let value = match value {
                HeaderValue::Text(text) => text.len(),
                HeaderValue::Bytes(bytes) => bytes.len(),
                HeaderValue::Int(_) | HeaderValue::Float(_) => 8,
                HeaderValue::Bool(_) => 1,
            };
            // A name has a length byte, a value a type byte and up to four of length.
            name.len() + value + 6
        })
        .sum()
}
