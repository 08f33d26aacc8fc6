//! What tells two contents under one id apart.

use mmate_core::{Context, DeadReason, HandlerError};
use sha2::{Digest as _, Sha256};

use crate::protocol::Digest;

/// What of a message is compared with what came before under the same id. A message whose id came
/// before with another content is dead-lettered as `conflict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Fingerprint {
    /// Type and payload: the same message sent again with a new timestamp is the same. The
    /// payload is compared as it is written, byte by byte. The whole body where it is no envelope.
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
                Ok(envelope) => envelope.raw_payload(),
                // Others than envelopes have a content too.
                Err(error) if error.dead_reason() == Some(DeadReason::Undecodable) => {
                    &context.message().body
                }
                Err(error) => return Err(error),
            },
            Self::Body | Self::Off => &context.message().body,
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
