//! The body of a message.

use bytes::Bytes;
use mmate_core::Envelope;
use serde_json::Value;

/// What is written reads as what it was.
pub(super) fn read(input: &[u8]) {
    let Ok(envelope) = Envelope::from_json(Bytes::copy_from_slice(input)) else { return };
    let written = envelope.to_json();
    let again = Envelope::from_json(written.clone()).expect("what was written is readable");
    assert_eq!(again.id, envelope.id);
    assert_eq!(again.message_type, envelope.message_type);
    assert_eq!(again.correlation_id, envelope.correlation_id);
    assert_eq!(again.causation_id, envelope.causation_id);
    assert_eq!(again.reply_to, envelope.reply_to);
    assert_eq!(again.headers, envelope.headers);
    assert_eq!(again.payload::<Value>().ok(), envelope.payload::<Value>().ok());
    assert_eq!(again.to_json(), written);
    let _ = envelope.payload::<Vec<String>>();
}
