//! Ids of messages and traces.

use mmate_core::{CausationId, CorrelationId, MessageId, TraceParent};

/// An id is what was written, to the last byte.
pub(super) fn read(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(id) = MessageId::parse(text) {
        assert_eq!(id.as_str(), text);
        assert_eq!(
            CorrelationId::parse(text).expect("what one id can be the other can").as_str(),
            text
        );
        assert!(CausationId::parse(text).is_ok());
    }
    if let Ok(parent) = text.parse::<TraceParent>() {
        let again: TraceParent = parent.to_string().parse().expect("what was written is readable");
        assert_eq!(again.to_string(), parent.to_string());
        assert_eq!(again.trace_id().len(), 32);
    }
}
