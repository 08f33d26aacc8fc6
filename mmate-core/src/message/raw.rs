//! A message as a broker carries it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::headers::Headers;

/// A message as a broker carries it: properties, headers and a body that nobody has looked into.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Message {
    /// The broker's own fields, unchecked: a stranger may have written them.
    pub properties: Properties,
    /// The headers.
    pub headers: Headers,
    /// The body's bytes.
    pub body: Bytes,
}

impl Message {
    /// A message with a body, and nothing else.
    #[must_use]
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }
}

/// The properties that a broker has fields of its own for. They are texts as received.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Properties {
    /// The body's media type.
    pub content_type: Option<String>,
    /// The message's id.
    pub message_id: Option<String>,
    /// The conversation's id.
    pub correlation_id: Option<String>,
    /// The message's type.
    pub message_type: Option<String>,
    /// When it was made, to the second.
    pub timestamp: Option<SystemTime>,
    /// The queue that a reply goes to.
    pub reply_to: Option<String>,
    /// The service that published it.
    pub app_id: Option<String>,
    /// How urgent it is, for queues that have priorities: higher is shown first.
    pub priority: Option<u8>,
    /// How long it may wait in a queue before it is shown to somebody, to the millisecond.
    pub expires_after: Option<Duration>,
    /// Whether the broker keeps it on disk.
    pub persistent: bool,
}
