//! A message on its way into the outbox.

use mmate_core::Outgoing;

/// A message to be written into an [`Outbox`](crate::Outbox): any [`Outgoing`], by itself or with a
/// key within which the order is kept.
///
/// ```
/// use mmate_core::Outgoing;
/// use mmate_idempotency::OutboxMessage;
/// let event = Outgoing::event("account.credited.eu", "AccountCredited", &100);
/// let message = OutboxMessage::new(event).key("account-7");
/// # let _ = message;
/// ```
#[derive(Debug)]
#[must_use = "a message does nothing until an outbox has it"]
pub struct OutboxMessage {
    pub(super) message: Outgoing,
    pub(super) key: Option<String>,
}

impl OutboxMessage {
    /// A message without a key: it waits for no other.
    pub fn new(message: Outgoing) -> Self {
        Self { message, key: None }
    }

    /// Messages of one key are sent one after another, in the order in which they were written,
    /// whichever processes send them. A key has 1 to 255 bytes without control characters.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

impl From<Outgoing> for OutboxMessage {
    fn from(message: Outgoing) -> Self {
        Self::new(message)
    }
}
