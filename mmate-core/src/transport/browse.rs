//! Looking through a queue.

use async_trait::async_trait;
use bytes::Bytes;

use super::delivery::Delivery;
use super::error::TransportError;
use crate::message::Headers;

/// Looks through a queue from its front to its back, and takes only what it is told to take. Made
/// by [`Connection::browse`](super::Connection::browse).
///
/// It sees what waited in the queue when it was opened, and nothing that comes later, so it ends. A
/// delivery that is dropped, or settled with [`Requeue`](super::Settlement::Requeue), stays in the
/// queue; nobody else gets it before the browser is closed. What a browser keeps of it meanwhile is
/// a number.
///
/// A browser belongs to one connection: when that is cut, it fails, and all that was not taken is
/// in the queue again. Open another one.
#[async_trait]
pub trait Browser: Send + 'static {
    /// The next message; `None` after the last.
    ///
    /// # Errors
    /// When the connection was cut, or somebody else holds what was in the queue.
    async fn next(&mut self) -> Result<Option<Delivery>, TransportError>;

    /// Gives back what was not taken, unchanged and in its order. Dropping the browser gives it
    /// back as well, and does not wait until that is done.
    async fn close(self: Box<Self>);
}

/// What a copy has otherwise than its original, see
/// [`Settlement::Move`](super::Settlement::Move).
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Changes {
    /// Headers that it does not have.
    pub unset: Vec<String>,
    /// Headers that it has instead or in addition.
    pub set: Headers,
    /// Its message id, in the property.
    pub message_id: Option<String>,
    /// Its body.
    pub body: Option<Bytes>,
}
