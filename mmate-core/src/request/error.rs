//! What may come instead of the reply that was asked for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::message::{DecodeError, Envelope, HeaderValue, Headers, Message, wire};
use crate::transport::{PublishError, TransportError};

/// Why a request has no reply of the type that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No reply came in time. Whether the request was or will be handled is not known.
    #[error("no reply came within {after:?}{}", if *published { "" } else { "; the request was not published by then" })]
    Timeout {
        /// The limit.
        after: Duration,
        /// Whether the broker had the request. If not, it may still get it.
        published: bool,
    },
    /// No queue takes the request: nobody answers such.
    #[error("nobody answers it: no queue takes the {destination}")]
    Unroutable {
        /// Where it was to go.
        destination: String,
    },
    /// The request was not published; or nobody knows, and no reply came in time
    /// ([`PublishError::Ambiguous`]).
    #[error("the request was not published: {0}")]
    Publish(#[source] PublishError),
    /// The answer says why there is no other.
    #[error(transparent)]
    Failed(#[from] ErrorReply),
    /// The reply is not of the type that was asked for.
    #[error("the reply cannot be decoded: {0}")]
    Undecodable(#[source] DecodeError),
    /// The queue for replies cannot be made or consumed.
    #[error("no reply can be received: {0}")]
    Transport(#[source] Arc<TransportError>),
    /// The connection was closed by us.
    #[error("the connection is closed")]
    Closed,
}

/// An answer that says why there is no other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorReply {
    /// For programs; empty if there is none.
    pub code: String,
    /// For people.
    pub message: String,
    /// Whatever else there is to say.
    pub details: Option<Value>,
}

impl ErrorReply {
    /// The error that a reply tells, if it tells one.
    fn of(headers: &Headers, envelope: &Envelope) -> Option<Self> {
        let success = match headers.value(wire::SUCCESS) {
            Some(HeaderValue::Bool(success)) => Some(*success),
            Some(HeaderValue::Text(text)) => text.parse().ok(),
            _ => None,
        };
        if success == Some(true) {
            return None;
        }
        let payload = envelope.payload::<Payload>().unwrap_or_default();
        // Without the header it must look like one in all its parts.
        let told = payload.success == Some(false) && payload.code.is_some();
        (success == Some(false) || told).then(|| Self {
            code: payload.code.unwrap_or_default(),
            message: payload
                .message
                .or(payload.error)
                .unwrap_or_else(|| "the reply does not say why".to_owned()),
            details: payload.details,
        })
    }
}

#[derive(Default, Deserialize)]
struct Payload {
    #[serde(default)]
    success: Option<bool>,
    #[serde(default, rename = "errorCode")]
    code: Option<String>,
    #[serde(default, rename = "errorMessage")]
    message: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default, rename = "errorDetails")]
    details: Option<Value>,
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code.as_str() {
            "" => write!(f, "the request failed: {}", self.message),
            code => write!(f, "the request failed with {code}: {}", self.message),
        }
    }
}

impl std::error::Error for ErrorReply {}

/// What a reply says.
pub(super) fn read<T: DeserializeOwned>(reply: Message) -> Result<T, RequestError> {
    let Message { headers, body, .. } = reply;
    let envelope = Envelope::from_json(body).map_err(RequestError::Undecodable)?;
    if let Some(error) = ErrorReply::of(&headers, &envelope) {
        return Err(RequestError::Failed(error));
    }
    envelope.payload().or_else(|error| {
        // `success` was written beside what the handler answered, and a strict type does not know it.
        envelope.payload_without("success").ok_or(RequestError::Undecodable(error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageId;

    fn reply(success: Option<HeaderValue>, payload: &Value) -> Message {
        let envelope = Envelope::new(MessageId::generate(), "GetPriceReply", payload).unwrap();
        let mut message = Message::new(envelope.to_json());
        if let Some(value) = success {
            message.headers.insert(wire::SUCCESS, value);
        }
        message
    }

    fn failed(message: Message) -> ErrorReply {
        match read::<Value>(message) {
            Err(RequestError::Failed(error)) => error,
            other => panic!("not an error reply: {other:?}"),
        }
    }

    #[test]
    fn an_error_reply_is_known_by_its_header_or_by_all_its_parts() {
        let full = serde_json::json!({
            "success": false, "errorCode": "X", "errorMessage": "boom", "errorDetails": {"n": 1}
        });
        for header in [None, Some("false".into()), Some(false.into())] {
            let error = failed(reply(header, &full));
            assert_eq!((error.code.as_str(), error.message.as_str()), ("X", "boom"));
            assert_eq!(error.details, Some(serde_json::json!({"n": 1})));
        }
        // As mmate for Go answers, and as nobody should.
        let short = serde_json::json!({"success": false, "error": "boom"});
        assert_eq!(failed(reply(Some("false".into()), &short)).message, "boom");
        assert_eq!(failed(reply(Some("false".into()), &Value::from(7))).code, "");
    }

    /// The golden replies of mmate for Go.
    #[test]
    fn replies_of_mmate_for_go_are_read_as_they_are_meant() {
        let golden = include_str!("../../tests/fixtures/mmate-go-wire.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let replies = golden["messages"].as_array().unwrap().iter();
        let replies = replies.filter(|m| m["headers"]["x-message-kind"]["value"] == "reply");
        let read: Vec<_> = replies
            .map(|captured| {
                let mut message = Message::new(serde_json::to_vec(&captured["body"]).unwrap());
                let success = captured["headers"]["x-success"]["value"].as_str().unwrap();
                message.headers.insert(wire::SUCCESS, success);
                read::<Value>(message)
            })
            .collect();
        match &read[..] {
            [Ok(order), Err(RequestError::Failed(error))] => {
                assert_eq!(order["orderId"], "O");
                assert_eq!((error.code.as_str(), error.message.as_str()), ("X", "boom"));
            }
            other => panic!("one reply and one error reply: {other:?}"),
        }
    }

    #[test]
    fn a_payload_that_happens_to_say_no_is_no_error() {
        let no = serde_json::json!({"success": false});
        assert_eq!(read::<Value>(reply(None, &no)).unwrap(), no);
        let odd = serde_json::json!({"success": false, "errorCode": "X"});
        assert_eq!(read::<Value>(reply(Some("true".into()), &odd)).unwrap(), odd);
    }

    #[test]
    fn a_type_that_is_strict_about_its_fields_is_read_too() {
        #[derive(Debug, Deserialize, PartialEq)]
        #[serde(deny_unknown_fields)]
        struct Price {
            cents: u64,
        }
        let sent = serde_json::json!({"success": true, "cents": u64::MAX});
        assert_eq!(read::<Price>(reply(None, &sent)).unwrap(), Price { cents: u64::MAX });
        let other = serde_json::json!({"success": true, "dollars": 1});
        assert!(matches!(read::<Price>(reply(None, &other)), Err(RequestError::Undecodable(_))));
    }
}
