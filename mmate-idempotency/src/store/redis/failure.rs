//! What Redis's errors mean.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::{StoreError, StoreErrorKind};

/// A failure to do what `attempted` says.
pub(super) fn failed(attempted: &'static str) -> impl Fn(RedisError) -> StoreError {
    move |error| StoreError::new(kind(&error), attempted, error)
}

/// A failure before anything was sent.
pub(super) fn not_reached(attempted: &'static str) -> impl Fn(RedisError) -> StoreError {
    move |error| {
        let kind = match kind(&error) {
            StoreErrorKind::Unknown => StoreErrorKind::Unavailable,
            told => told,
        };
        StoreError::new(kind, attempted, error)
    }
}

/// Codes of errors by which a server says that it changes nothing now: its memory or disk is full,
/// too few replicas are there, another script runs.
const NOT_NOW: [&str; 5] = ["OOM", "MISCONF", "NOREPLICAS", "BUSY", "MASTERDOWN"];

/// Codes of errors that only another configuration mends.
const NEVER: [&str; 4] = ["NOAUTH", "WRONGPASS", "NOPERM", "WRONGTYPE"];

fn kind(error: &RedisError) -> StoreErrorKind {
    match error.kind() {
        ErrorKind::Io if error.is_connection_refusal() => StoreErrorKind::Unavailable,
        ErrorKind::Io if is_mistrust(error) => StoreErrorKind::Permanent,
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::NoScript => StoreErrorKind::Unavailable,
            _ if is_about(error, &NOT_NOW) => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Permanent,
        },
        ErrorKind::Extension if is_about(error, &NOT_NOW) => StoreErrorKind::Unavailable,
        ErrorKind::ClusterConnectionNotFound | ErrorKind::MasterNameNotFoundBySentinel => {
            StoreErrorKind::Unavailable
        }
        ErrorKind::Extension if is_about(error, &NEVER) => StoreErrorKind::Permanent,
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::EmptySentinelList
        | ErrorKind::UnexpectedReturnType
        | ErrorKind::RESP3NotSupported
        | ErrorKind::Extension => StoreErrorKind::Permanent,
        _ => StoreErrorKind::Unknown,
    }
}

/// Whether one of the two does not trust the other, as rustls says it.
fn is_mistrust(error: &RedisError) -> bool {
    let text = error.to_string();
    ["invalid peer certificate", "received fatal alert"].iter().any(|part| text.contains(part))
}

/// Whether the error has one of these codes: as its own, or, before Redis 7, within the text of the
/// script's error.
fn is_about(error: &RedisError, codes: &[&str]) -> bool {
    let text = error.detail().unwrap_or_default();
    let mut words = text.split(|c: char| !c.is_ascii_uppercase()).chain(error.code());
    words.any(|word| codes.contains(&word))
}

/// Whether another connection may do better.
pub(super) fn is_of_the_connection(error: &RedisError) -> bool {
    use ServerErrorKind::{MasterDown, ReadOnly};
    let is_misled = matches!(error.kind(), ErrorKind::Server(ReadOnly | MasterDown));
    is_misled || kind(error) == StoreErrorKind::Unknown
}
