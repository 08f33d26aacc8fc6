//! What tells two contents under one id apart.

use std::borrow::Cow;
use std::collections::BTreeMap;

use mmate_core::{Context, DeadReason, Envelope, HandlerError};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::protocol::Digest;

/// What of a message is compared with what came before under the same id. A message whose id came
/// before with another content is dead-lettered as `conflict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Fingerprint {
    /// Type and payload: the same message sent again with a new timestamp is the same. The
    /// payload is compared as it is written, byte by byte, but for the reply address of a request,
    /// which is another one for each process that asks. The whole body where it is no envelope.
    /// The default.
    #[default]
    Payload,
    /// Type and body, byte by byte.
    Body,
    /// Nothing: what has the same id is the same.
    Off,
}

impl Fingerprint {
    pub(super) fn of(self, context: &Context) -> Result<Option<Digest>, HandlerError> {
        match self {
            Self::Off => Ok(None),
            Self::Payload | Self::Body => {
                let whole = self.hash(context)?;
                let half = whole.first_chunk().expect("a SHA-256 has more than 16 bytes");
                Ok(Some(Digest::from_bytes(*half)))
            }
        }
    }

    /// An id made of a message's content.
    pub(super) fn content_id(context: &Context) -> Result<String, HandlerError> {
        use std::fmt::Write;
        let mut id = "content-".to_owned();
        for byte in Self::Payload.hash(context)? {
            write!(id, "{byte:02x}").expect("writing into a string does not fail");
        }
        Ok(id)
    }

    fn hash(self, context: &Context) -> Result<[u8; 32], HandlerError> {
        let content = match self {
            Self::Payload => match context.envelope() {
                Ok(envelope) => without_address(envelope),
                // Others than envelopes have a content too.
                Err(error) if error.dead_reason() == Some(DeadReason::Undecodable) => {
                    Cow::Borrowed(&context.message().body[..])
                }
                Err(error) => return Err(error),
            },
            Self::Body | Self::Off => Cow::Borrowed(&context.message().body[..]),
        };
        let message_type = context.message_type();
        let mut hash = Sha256::new();
        // The length first, so that no byte can be of the one or of the other.
        hash.update((message_type.len() as u64).to_be_bytes());
        hash.update(message_type.as_bytes());
        hash.update(content);
        Ok(hash.finalize().into())
    }
}

/// The payload without the reply address that was written into it for mmate for Go.
fn without_address(envelope: &Envelope) -> Cow<'_, [u8]> {
    let payload = &envelope.raw_payload()[..];
    let cut = envelope.reply_to.as_deref().and_then(|address| cut_out(payload, address));
    cut.map_or(Cow::Borrowed(payload), Cow::Owned)
}

fn cut_out(payload: &[u8], address: &str) -> Option<Vec<u8>> {
    let opened = payload.strip_prefix(b"{")?;
    // As this project writes it: what is left is what was there before.
    let field = format!("\"replyTo\":{}", serde_json::Value::from(address));
    match opened.strip_prefix(field.as_bytes()) {
        Some([b',', rest @ ..] | rest @ [b'}', ..]) => Some([b"{", rest].concat()),
        // As others do, by its name, wherever it stands.
        _ => {
            let mut fields: BTreeMap<String, &RawValue> = serde_json::from_slice(payload).ok()?;
            fields.remove("replyTo")?;
            serde_json::to_vec(&fields).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S33, S52
    #[test]
    fn a_request_is_the_same_wherever_its_reply_goes() {
        let cut = |payload: &str| {
            cut_out(payload.as_bytes(), "a.replies.1").map(|cut| String::from_utf8(cut).unwrap())
        };
        let ours = r#"{"replyTo":"a.replies.1","b": 2,"a":1.0}"#;
        assert_eq!(cut(ours).as_deref(), Some(r#"{"b": 2,"a":1.0}"#));
        assert_eq!(cut(r#"{"replyTo":"a.replies.1"}"#).as_deref(), Some("{}"));
        let of_go = r#"{"b":2,"replyTo":"a.replies.1","a":1.0}"#;
        assert_eq!(cut(of_go).as_deref(), Some(r#"{"a":1.0,"b":2}"#));
        for other in ["[1]", "7", r#"{"a":1}"#, r#"{"a":{"replyTo":"a.replies.1"}}"#] {
            assert_eq!(cut(other), None, "{other}");
        }
    }
}
