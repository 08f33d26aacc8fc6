//! What PostgreSQL's errors mean.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::store::{StoreError, StoreErrorKind};

/// A failure to do what `attempted` says, on a connection.
pub(crate) fn failed(attempted: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| StoreError::new(kind(&error), attempted, error)
}

/// A failure to have a connection for what `attempted` says: nothing was asked.
pub(crate) fn not_reached(attempted: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
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
        sqlx::Error::Database(_) => match of_database(error) {
            Some((code, ends_connection)) => of_code(code, ends_connection),
            None => StoreErrorKind::Permanent,
        },
        sqlx::Error::PoolTimedOut | sqlx::Error::BeginFailed => StoreErrorKind::Unavailable,
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            StoreErrorKind::Unknown
        }
        _ => StoreErrorKind::Permanent,
    }
}

/// By SQLSTATE, <https://www.postgresql.org/docs/current/errcodes-appendix.html>. What fails with
/// the connection as it was is rolled back. What ends the connection may come when a commit is
/// made already, and its answer is not out.
fn of_code(code: &str, ends_connection: bool) -> StoreErrorKind {
    match (code, code.get(..2).unwrap_or_default()) {
        // Too slow within a transaction; starting, stopping or recovering.
        ("25P03" | "57P03", _) => StoreErrorKind::Unavailable,
        ("40003", _) | (_, "08") => StoreErrorKind::Unknown,
        // A standby, until there is a connection to its successor.
        ("25006", _) => StoreErrorKind::Unavailable,
        // Of a rolled back transaction; of resources; of locks; of an operator; of the system.
        (_, "40" | "53" | "55" | "57" | "58") if !ends_connection => StoreErrorKind::Unavailable,
        // Too many connections.
        (_, "53") => StoreErrorKind::Unavailable,
        // Who may connect to which database.
        (_, "28" | "3D" | "42") => StoreErrorKind::Permanent,
        _ if ends_connection => StoreErrorKind::Unknown,
        _ => StoreErrorKind::Permanent,
    }
}

/// The code, and whether the connection ends with it.
fn of_database(error: &sqlx::Error) -> Option<(&str, bool)> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    let ends = matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic);
    Some((error.code(), ends))
}

fn code(error: &sqlx::Error) -> Option<&str> {
    of_database(error).map(|(code, _)| code)
}

/// Whether somebody else holds a lock for longer than was waited.
pub(crate) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    code(error) == Some("55P03")
}

/// Whether it was rolled back in favour of another transaction: it could not be serialized, or
/// was one of those in a deadlock.
pub(crate) fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(code(error), Some("40001" | "40P01"))
}

/// Whether the connection is gone, and whatever was not committed with it.
pub(crate) fn is_cut(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        _ => code(error).is_some_and(|code| {
            matches!(code, "57P01" | "57P02" | "57P03") || code.starts_with("08")
        }),
    }
}

/// Whether it was refused to go on in a transaction in which a statement had failed.
pub(crate) fn is_aborted(error: &sqlx::Error) -> bool {
    code(error) == Some("25P02")
}

/// Whether the transaction that was begun is not there any more: there is none, or one that does
/// not have its mark.
pub(crate) fn is_ended(error: &sqlx::Error) -> bool {
    matches!(code(error), Some("25P01" | "22P02" | "42704"))
}

/// Whether a commit was refused, so that nothing took effect.
pub(crate) fn is_refused(error: &sqlx::Error) -> bool {
    of_database(error).is_some_and(|(code, ends)| !ends && code != "40003" || code == "25P03")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_works_is_told_from_what_may_work_later_and_from_what_nobody_knows() {
        for code in ["22021", "54000", "42P01", "42501", "23514", "0A000"] {
            assert_eq!(of_code(code, false), StoreErrorKind::Permanent, "{code}");
        }
        for code in ["40001", "40P01", "53100", "55P03", "57014", "58030", "25006"] {
            assert_eq!(of_code(code, false), StoreErrorKind::Unavailable, "{code}");
        }
        for code in ["57P03", "53300", "25P03"] {
            assert_eq!(of_code(code, true), StoreErrorKind::Unavailable, "{code}");
        }
        for code in ["28P01", "3D000"] {
            assert_eq!(of_code(code, true), StoreErrorKind::Permanent, "{code}");
        }
        for code in ["57P01", "57P02", "XX000", "08006"] {
            assert_eq!(of_code(code, true), StoreErrorKind::Unknown, "{code}");
        }
    }
}
