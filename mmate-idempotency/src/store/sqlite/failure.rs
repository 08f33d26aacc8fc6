//! What SQLite's errors mean.

use crate::store::{StoreError, StoreErrorKind};

/// Primary result codes, <https://www.sqlite.org/rescode.html>.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const NOMEM: i32 = 7;
const INTERRUPT: i32 = 9;
const IOERR: i32 = 10;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const CONSTRAINT: i32 = 19;

/// A failure to do what `attempted` says.
pub(crate) fn failed(attempted: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| StoreError::new(kind(&error), attempted, error)
}

fn kind(error: &sqlx::Error) -> StoreErrorKind {
    match error {
        sqlx::Error::Database(_) => match code(error) {
            Some(BUSY | LOCKED | NOMEM | INTERRUPT | FULL | CANTOPEN) => {
                StoreErrorKind::Unavailable
            }
            Some(IOERR) => StoreErrorKind::Unknown,
            _ => StoreErrorKind::Permanent,
        },
        sqlx::Error::PoolTimedOut | sqlx::Error::BeginFailed => StoreErrorKind::Unavailable,
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => StoreErrorKind::Unknown,
        _ => StoreErrorKind::Permanent,
    }
}

/// Whether the database is in use by somebody else.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(BUSY | LOCKED))
}

/// Whether a constraint is not met.
pub(crate) fn is_constraint(error: &sqlx::Error) -> bool {
    code(error) == Some(CONSTRAINT)
}

/// Whether there was no transaction to commit.
pub(crate) fn is_no_transaction(error: &sqlx::Error) -> bool {
    // The code, SQLITE_ERROR, is that of any mistake in a statement.
    let message = error.as_database_error().map(|error| error.message());
    message.is_some_and(|text| text.contains("no transaction is active"))
}

/// Whether a column was not added, since it is there.
pub(super) fn is_column_there(error: &sqlx::Error) -> bool {
    let message = error.as_database_error().map(|error| error.message());
    message.is_some_and(|text| text.contains("duplicate column name"))
}

/// Whether a transaction was not begun, since there is one.
pub(crate) fn is_transaction_open(error: &sqlx::Error) -> bool {
    let message = error.as_database_error().map(|error| error.message());
    message.is_some_and(|text| text.contains("within a transaction"))
}

/// The primary code is the low byte of the extended one.
fn code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}
