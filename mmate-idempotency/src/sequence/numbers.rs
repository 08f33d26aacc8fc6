//! Numbers without gaps.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use sqlx::Pool;

use super::SequenceDatabase;
use super::database::Numbers as _;
use super::limits::{Text, check};
use crate::store::sql::check_name;
use crate::store::{InvalidTableName, StoreError, StoreErrorKind};

/// Numbers from 1 without gaps, for each key: the messages of a conversation, the events of an
/// aggregate.
///
/// A number is taken in a transaction, the handler's own or any other: it is given out if that
/// commits, and to somebody else if not. So there is no gap and no number twice; and transactions
/// that take numbers of one key come one after the other, each waiting for the one before to end.
/// Different keys do not wait for each other (but on SQLite, which has one writer).
///
/// ```
/// use mmate_core::{HandlerError, Json};
/// use mmate_idempotency::Tx;
/// use mmate_idempotency::sequence::Sequence;
/// use sqlx::Sqlite;
/// # #[derive(serde::Deserialize)] struct Said { conversation: String, text: String }
///
/// async fn say(Json(said): Json<Said>, mut tx: Tx<Sqlite>) -> Result<(), HandlerError> {
///     let number = Sequence::<Sqlite>::new("chat").next(&mut tx, &said.conversation).await?;
///     sqlx::query("INSERT INTO messages (conversation, number, text) VALUES (?, ?, ?)")
///         .bind(said.conversation).bind(number).bind(said.text).execute(&mut *tx).await?;
///     Ok(())
/// }
/// # let _ = say;
/// ```
///
/// The table, `message_sequences`, is made by [`migrate`](Self::migrate), or by the file
/// `sequences.sql` in the crate's `migrations/`.
pub struct Sequence<DB> {
    name: Arc<str>,
    table: Arc<str>,
    database: PhantomData<fn() -> DB>,
}

const DEFAULT_TABLE: &str = "message_sequences";

impl<DB: SequenceDatabase> Sequence<DB> {
    /// The sequence of this name, 255 bytes at most. Each key of each name counts for itself.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), table: DEFAULT_TABLE.into(), database: PhantomData }
    }

    /// Uses another table than `message_sequences`.
    ///
    /// # Errors
    /// When that cannot be the name of one.
    pub fn table(mut self, name: &str) -> Result<Self, InvalidTableName> {
        check_name(name)?;
        self.table = name.into();
        Ok(self)
    }

    /// Makes the table if it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn migrate(&self, pool: &Pool<DB>) -> Result<(), StoreError> {
        let made = DB::Numbers::create(pool, &self.table).await;
        made.map_err(|error| failed("make the table of sequences", error))
    }

    /// Takes the next number of a key, from 1, in the transaction that is open on this connection.
    /// Without a transaction it is given out at once, and a crash afterwards leaves a gap.
    ///
    /// # Errors
    /// When the database does not do it, or the key or the sequence's name is longer than 255 bytes
    /// or has a NUL in it. The transaction is to be given up then.
    pub async fn next(
        &self,
        connection: &mut DB::Connection,
        key: &str,
    ) -> Result<i64, StoreError> {
        self.check(key)?;
        let next = DB::Numbers::next(connection, &self.table, &self.name, key).await;
        next.map_err(|error| failed("take the next number", error))
    }

    /// The last number of a key that this connection sees; 0 if there is none.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn last(
        &self,
        connection: &mut DB::Connection,
        key: &str,
    ) -> Result<i64, StoreError> {
        self.check(key)?;
        let last = DB::Numbers::last(connection, &self.table, &self.name, key).await;
        last.map(Option::unwrap_or_default)
            .map_err(|error| failed("look for the last number", error))
    }

    /// Makes sure that the next number of a key is above `least`, for keys whose numbers were given
    /// out elsewhere before. A key that is further stays where it is.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn raise(
        &self,
        connection: &mut DB::Connection,
        key: &str,
        least: i64,
    ) -> Result<(), StoreError> {
        self.check(key)?;
        let raised = DB::Numbers::raise(connection, &self.table, &self.name, key, least).await;
        raised.map_err(|error| failed("raise a sequence", error))
    }

    fn check(&self, key: &str) -> Result<(), StoreError> {
        check(Text::Name, &self.name)?;
        check(Text::Key, key)
    }
}

/// What was not done is not done: a transaction around it decides what is.
fn failed(attempted: &'static str, error: sqlx::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, attempted, error)
}

impl<DB> Clone for Sequence<DB> {
    fn clone(&self) -> Self {
        let (name, table) = (Arc::clone(&self.name), Arc::clone(&self.table));
        Self { name, table, database: PhantomData }
    }
}

impl<DB> fmt::Debug for Sequence<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence").field("name", &self.name).field("table", &self.table).finish()
    }
}
