//! What errors of MySQL and MariaDB mean.

use sqlx::mysql::MySqlDatabaseError;

use crate::store::{StoreError, StoreErrorKind};

/// Error numbers, <https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html> and
/// <https://mariadb.com/kb/en/mariadb-error-code-reference/>.
const DISK_FULL: u16 = 1021;
const RECORD_HAS_CHANGED: u16 = 1020;
const ERROR_ON_WRITE: u16 = 1026;
const OUT_OF_MEMORY: u16 = 1037;
const OUT_OF_SORT_MEMORY: u16 = 1038;
const TOO_MANY_CONNECTIONS: u16 = 1040;
const OUT_OF_RESOURCES: u16 = 1041;
const NODE_IS_NOT_READY: u16 = 1047;
const SHUTTING_DOWN: u16 = 1053;
const COLUMN_IS_THERE: u16 = 1060;
const TABLE_IS_FULL: u16 = 1114;
const ERROR_DURING_COMMIT: u16 = 1180;
const TOO_MANY_OF_THE_USER: u16 = 1203;
const LOCK_WAIT_TIMEOUT: u16 = 1205;
const LOCK_TABLE_FULL: u16 = 1206;
const DEADLOCK: u16 = 1213;
const RESOURCES_OF_THE_USER: u16 = 1226;
const OPTION_PREVENTS_IT: u16 = 1290;
const NO_SUCH_SAVEPOINT: u16 = 1305;
const INTERRUPTED: u16 = 1317;
const READ_ONLY: u16 = 1836;
const CONNECTION_KILLED: u16 = 1927;
const STATEMENT_TIMEOUT_OF_MARIADB: u16 = 1969;
const STATEMENT_TIMEOUT: u16 = 3024;
const OFFLINE: u16 = 3032;

/// A failure to do what `attempted` says.
pub(crate) fn failed(attempted: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| StoreError::new(kind(&error), attempted, error)
}

/// A failure to get a connection: nothing was asked yet.
pub(super) fn unreached(attempted: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| {
        let kind = match kind(&error) {
            StoreErrorKind::Unknown => StoreErrorKind::Unavailable,
            other => other,
        };
        StoreError::new(kind, attempted, error)
    }
}

fn kind(error: &sqlx::Error) -> StoreErrorKind {
    match error {
        sqlx::Error::Database(_) => match number(error) {
            Some(
                DISK_FULL
                | RECORD_HAS_CHANGED
                | OUT_OF_MEMORY
                | OUT_OF_SORT_MEMORY
                | TOO_MANY_CONNECTIONS
                | OUT_OF_RESOURCES
                | NODE_IS_NOT_READY
                | TABLE_IS_FULL
                | TOO_MANY_OF_THE_USER
                | LOCK_WAIT_TIMEOUT
                | LOCK_TABLE_FULL
                | DEADLOCK
                | RESOURCES_OF_THE_USER
                | OPTION_PREVENTS_IT
                | READ_ONLY
                | OFFLINE,
            ) => StoreErrorKind::Unavailable,
            // These may come while a commit is under way.
            Some(
                ERROR_ON_WRITE
                | SHUTTING_DOWN
                | ERROR_DURING_COMMIT
                | INTERRUPTED
                | CONNECTION_KILLED
                | STATEMENT_TIMEOUT
                | STATEMENT_TIMEOUT_OF_MARIADB,
            ) => StoreErrorKind::Unknown,
            _ => StoreErrorKind::Permanent,
        },
        sqlx::Error::PoolTimedOut | sqlx::Error::BeginFailed => StoreErrorKind::Unavailable,
        // What comes over a connection that is cut need not be in order.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => StoreErrorKind::Unknown,
        _ => StoreErrorKind::Permanent,
    }
}

/// Whether two transactions were in each other's way: this one was rolled back as a whole.
pub(crate) fn is_deadlock(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(DEADLOCK | RECORD_HAS_CHANGED))
}

/// Whether somebody else's transaction had it for too long: only the statement was rolled back.
pub(crate) fn is_lock_wait_timeout(error: &sqlx::Error) -> bool {
    number(error) == Some(LOCK_WAIT_TIMEOUT)
}

/// Whether a column was not added, since it is there.
pub(super) fn is_column_there(error: &sqlx::Error) -> bool {
    number(error) == Some(COLUMN_IS_THERE)
}

/// Whether the transaction that was to be committed is not the one that was begun.
pub(crate) fn is_no_savepoint(error: &sqlx::Error) -> bool {
    number(error) == Some(NO_SUCH_SAVEPOINT)
}

fn number(error: &sqlx::Error) -> Option<u16> {
    error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>().map(|error| error.number())
}
