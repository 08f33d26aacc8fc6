//! Messages that were given up.

use std::time::{Duration, SystemTime};

use mmate_core::MessageId;

use super::database::{DeadRow, Rows as _};
use super::error::failed;
use super::{Outbox, OutboxDatabase, OutboxError};

/// A message that no attempt could send, and that is kept for somebody to decide about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadMessage {
    /// Its place in the outbox, which no other message ever has.
    pub seq: i64,
    /// Its id.
    pub message_id: String,
    /// Its type.
    pub message_type: String,
    /// Where it was to go, in words.
    pub destination: String,
    /// The key within which the order is kept.
    pub key: Option<String>,
    /// How many attempts failed.
    pub attempts: u32,
    /// What the last of them failed with.
    pub error: String,
    /// When it was written.
    pub written_at: SystemTime,
    /// When it was given up.
    pub dead_at: SystemTime,
}

impl From<DeadRow> for DeadMessage {
    fn from(row: DeadRow) -> Self {
        let (seq, message_id, message_type, destination, key, attempts, error, written, dead) = row;
        Self {
            seq,
            message_id,
            message_type,
            destination,
            key,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            error: error.unwrap_or_default(),
            written_at: moment(written),
            dead_at: moment(dead.unwrap_or_default()),
        }
    }
}

impl DeadMessage {
    /// Whether it is the message of that id.
    #[must_use]
    pub fn is(&self, id: &MessageId) -> bool {
        self.message_id == id.as_str()
    }
}

fn moment(millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs())
}

impl<DB: OutboxDatabase> Outbox<DB> {
    /// The messages that were given up, oldest first, `at_most` so many.
    ///
    /// ```
    /// # use mmate_idempotency::{Outbox, OutboxError};
    /// # use sqlx::Sqlite;
    /// # async fn example(outbox: Outbox<Sqlite>) -> Result<(), OutboxError> {
    /// for message in outbox.dead(100).await? {
    ///     println!("{} to the {}: {}", message.message_id, message.destination, message.error);
    ///     outbox.retry(&message).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the database fails.
    pub async fn dead(&self, at_most: u32) -> Result<Vec<DeadMessage>, OutboxError> {
        let rows = DB::Rows::dead(&self.table, at_most.into()).await;
        let rows = rows.map_err(failed("list the messages that were given up"))?;
        Ok(rows.into_iter().map(DeadMessage::from).collect())
    }

    /// Has a message that was given up sent after all, with all its attempts before it again. False
    /// if it is there no more, or not given up any more.
    ///
    /// Later messages of its key may have been sent meanwhile.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retry(&self, message: &DeadMessage) -> Result<bool, OutboxError> {
        let found = DB::Rows::retry(&self.table, message.seq).await;
        let found = found.map_err(failed("retry a message that was given up"))?;
        self.wake();
        Ok(found)
    }

    /// Forgets a message that was given up. False if it is there no more, or not given up any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn discard(&self, message: &DeadMessage) -> Result<bool, OutboxError> {
        let found = DB::Rows::discard(&self.table, message.seq).await;
        found.map_err(failed("discard a message that was given up"))
    }
}
