//! What goes wrong with an outbox.

use mmate_core::{BoxError, InvalidId, InvalidMessage};

/// An outbox did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The message cannot be published as it is. Nothing was written.
    #[error("failed to write a message into the outbox")]
    Message(#[from] InvalidMessage),
    /// The key cannot be one. Nothing was written.
    #[error("failed to write a message into the outbox: its key is refused")]
    Key(#[source] InvalidId),
    /// The message cannot be kept as it is. Nothing was written.
    #[error("failed to write a message into the outbox: it cannot be kept")]
    Unkeepable(#[source] BoxError),
    /// The transaction is that of a batch, and it is not said for which of its messages. Nothing was
    /// written.
    #[error(
        "failed to write a message into the outbox: the transaction is that of a batch, so say for \
         which of its messages, with .publish_for(&mut tx, &item, message)"
    )]
    OfABatch,
    /// The table is there in another shape, or cannot be made.
    #[error(
        "failed to use the table {table:?} as an outbox: it is there in another shape, or cannot be \
         made; rename it, or give the outbox a table of its own with .table(…)"
    )]
    Table {
        /// The table's name.
        table: String,
        /// What the database says.
        source: sqlx::Error,
    },
    /// The database failed. In a transaction, roll it back.
    #[error("failed to {attempted}")]
    Database {
        /// What was tried.
        attempted: &'static str,
        /// What the database says.
        source: sqlx::Error,
    },
}

/// A failure of the database to do what `attempted` says.
pub(super) fn failed(attempted: &'static str) -> impl Fn(sqlx::Error) -> OutboxError {
    move |source| OutboxError::Database { attempted, source }
}
