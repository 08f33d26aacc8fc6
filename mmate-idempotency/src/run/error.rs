//! Why a call has no value.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::StoreError;
use crate::store::RecordKey;

/// Why a call of [`Idempotent::run`](crate::Idempotent::run) has no value.
///
/// `E` is the error of the work. This is an [`Error`](std::error::Error) where `E` is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E> {
    /// The work failed. Unless [`keep_errors`](crate::Run::keep_errors) says that this error is
    /// kept, the next call runs its work.
    #[error("the work failed")]
    Failed {
        /// What the work returned.
        #[source]
        error: E,
        /// Whether it was another call's work that failed, whose error was kept.
        replayed: bool,
    },
    /// The key was used before with another fingerprint. Nothing ran.
    #[error("the key {key:?} was used before for something else")]
    Conflict {
        /// The key.
        key: RecordKey,
    },
    /// Another call works on the key, and was not done in the time that this one waits. Nothing of
    /// this call ran.
    #[error("the key {key:?} is being worked on; waited {waited:?} for it")]
    Busy {
        /// The key.
        key: RecordKey,
        /// How long this call waited.
        waited: Duration,
        /// In how long the other's lease ends at the latest, unless it is prolonged.
        lease_left: Duration,
    },
    /// The work was cancelled, since its lease was lost: the store could not be reached to prolong
    /// it, or this process stood still, and another may work on the key by now.
    #[error("the lease on {key:?} was lost, and the work was cancelled")]
    LeaseLost {
        /// The key.
        key: RecordKey,
    },
    /// The work is done, but that could not be recorded: the store does not answer, or the lease
    /// was lost at the last moment. **A later call runs its work again**, once the lease is over.
    /// It is counted in `mmate_uncertain_total`.
    #[error("the work on {key:?} was done, but that could not be recorded")]
    Unrecorded {
        /// The key.
        key: RecordKey,
        /// The value, as it would have been kept: JSON, or the bytes of
        /// [`run_bytes`](crate::Idempotent::run_bytes).
        value: Bytes,
        /// What the store says; absent where it says that the lease is another's.
        source: Option<StoreError>,
    },
    /// The work is done and recorded, but its value is too large to be kept. No later call runs its
    /// work; each gets [`ValueMissing`](Self::ValueMissing).
    #[error(
        "the work on {key:?} is done, but its value of {bytes} bytes is larger than the {limit} \
         that are kept"
    )]
    TooLarge {
        /// The key.
        key: RecordKey,
        /// How large the value is.
        bytes: usize,
        /// How large it may be; see [`value_limit`](crate::Idempotent::value_limit).
        limit: usize,
        /// The value, as it would have been kept.
        value: Bytes,
    },
    /// The work is done and recorded, but its value cannot be written as JSON. No later call runs
    /// its work; each gets [`ValueMissing`](Self::ValueMissing).
    #[error("the work on {key:?} is done, but its value is not representable in JSON")]
    NotRepresentable {
        /// The key.
        key: RecordKey,
        /// Why.
        source: serde_json::Error,
    },
    /// The work was done before, and its value was not kept. Nothing ran.
    #[error("the work on {key:?} was done before, but its value was not kept")]
    ValueMissing {
        /// The key.
        key: RecordKey,
        /// Since when it is done, by the store's clock; absent if that was just now.
        since: Option<SystemTime>,
    },
    /// The work was done before, and its value is not of the type that is asked for. Nothing ran.
    #[error("the work on {key:?} was done before, but its value cannot be read as what is wanted")]
    Undecodable {
        /// The key.
        key: RecordKey,
        /// Why.
        source: serde_json::Error,
    },
    /// The store does not answer, or cannot do what it is asked. Nothing ran.
    #[error("nothing is known of the key {key:?}")]
    Store {
        /// The key.
        key: RecordKey,
        /// What the store says.
        source: StoreError,
    },
    /// The runtime ended while the work was under way.
    #[error("the runtime ended while the work on {key:?} was under way")]
    Aborted {
        /// The key.
        key: RecordKey,
    },
}

/// Why nothing ran, before it is known what the work's errors are.
pub(super) enum Refusal {
    Conflict,
    Busy { waited: Duration, lease_left: Duration },
    Store(StoreError),
}

impl Refusal {
    pub(super) fn of<E>(self, key: RecordKey) -> RunError<E> {
        match self {
            Self::Conflict => RunError::Conflict { key },
            Self::Busy { waited, lease_left } => RunError::Busy { key, waited, lease_left },
            Self::Store(source) => RunError::Store { key, source },
        }
    }
}
