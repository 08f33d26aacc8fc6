//! Messages: their ids, headers and envelopes, and what stands for them on the wire.

mod envelope;
mod headers;
mod id;
mod meta;
mod outgoing;
mod raw;
mod rename;
mod timestamp;
pub mod wire;

pub use envelope::{DecodeError, Envelope};
pub use headers::{HeaderValue, Headers};
pub use id::{CausationId, CorrelationId, InvalidId, MAX_ID_BYTES, MessageId};
pub use meta::{Malformed, MessageKind, Meta};
pub use outgoing::{InvalidMessage, Outgoing};
pub use raw::{Message, Properties};
pub(crate) use rename::with_id;
pub(crate) use timestamp::from_text as time_from_text;
