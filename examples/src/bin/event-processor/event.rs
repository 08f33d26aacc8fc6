//! An event, as it is published, shown and processed.

use mmate_core::MessageId;
use mmate_idempotency::protocol::Digest;
use mmate_idempotency::store::RecordKey;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Whose records they are, whichever way an event came.
pub(crate) const SCOPE: &str = "event-processor";

/// The body of `POST /publish`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    pub(crate) event_id: MessageId,
    /// Any JSON, kept as it was written.
    pub(crate) payload: Box<RawValue>,
}

/// An event in the journal, as the listeners are sent it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Numbered {
    /// From 1, in the order of publishing.
    pub(crate) number: i64,
    pub(crate) event: Event,
}

impl Event {
    /// Under which it is recorded.
    pub(crate) fn key(&self) -> RecordKey {
        RecordKey::new(SCOPE, &self.event_id).expect("it is an id")
    }

    /// By which two payloads under one id are told apart.
    pub(crate) fn fingerprint(&self) -> Digest {
        Digest::of(self.payload.get())
    }
}
