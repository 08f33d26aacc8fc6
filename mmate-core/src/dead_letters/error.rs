//! What goes wrong with dead letters.

use crate::transport::TransportError;

/// Why dead letters could not be read or moved. Whatever it is, no letter is lost: what was not
/// replayed or discarded is still in its queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// The dead-letter queue could not be opened.
    #[error("cannot open the dead letters of the queue {queue}: {source}")]
    Unavailable {
        /// The queue that they come from.
        queue: String,
        /// Why.
        source: TransportError,
    },
    /// The connection was lost while they were gone through. Do it again: those that are done are
    /// not there any more, or come a second time with the same id.
    #[error(
        "going through the dead letters of the queue {queue} was interrupted after {done} were done: {source}"
    )]
    Interrupted {
        /// The queue that they come from.
        queue: String,
        /// How many were replayed or discarded before.
        done: u64,
        /// Why.
        source: TransportError,
    },
    /// A letter could not be moved and is where it was, and so is everything after it.
    #[error(
        "the dead letter {letter} of the queue {queue} stays where it is, after {done} were done: {reason}"
    )]
    Stayed {
        /// The queue that they come from.
        queue: String,
        /// The letter's message id, or `without an id`.
        letter: String,
        /// How many were replayed or discarded.
        done: u64,
        /// Why.
        reason: String,
    },
}

impl DeadLetterError {
    /// How many letters were replayed or discarded before it went wrong.
    #[must_use]
    pub fn done(&self) -> u64 {
        match self {
            Self::Unavailable { .. } => 0,
            Self::Interrupted { done, .. } | Self::Stayed { done, .. } => *done,
        }
    }
}
