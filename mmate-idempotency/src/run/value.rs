//! Values: what comes back, and how they are kept.

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};

use crate::strategy::answers;

/// A value, and whether the work that gave it was done by this very call.
///
/// ```
/// use mmate_idempotency::Ran;
/// assert_eq!(Ran::Replayed(7).into_value(), 7);
/// assert!(!Ran::Fresh(7).is_replayed());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "this call did it or it did not")]
pub enum Ran<T> {
    /// The work of this call ran, and gave it.
    Fresh(T),
    /// Another call's work gave it: before, or just now while this one waited. The work of this call
    /// did not run.
    Replayed(T),
}

impl<T> Ran<T> {
    /// The value, wherever it comes from.
    #[must_use]
    pub fn into_value(self) -> T {
        match self {
            Self::Fresh(value) | Self::Replayed(value) => value,
        }
    }

    /// Whether another call's work gave it.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        matches!(self, Self::Replayed(_))
    }
}

/// How the values of a call, and the errors of its work, become bytes and come back.
pub(super) struct Codec<T, E> {
    pub(super) value: Coding<T>,
    /// Absent where no errors are kept.
    pub(super) errors: Option<Errors<E>>,
}

pub(super) struct Coding<T> {
    pub(super) encode: fn(&T) -> serde_json::Result<Bytes>,
    pub(super) decode: fn(&Bytes) -> serde_json::Result<T>,
}

pub(super) struct Errors<E> {
    pub(super) keeps: Box<dyn Fn(&E) -> bool + Send + Sync>,
    pub(super) coding: Coding<E>,
}

/// What a record has kept.
pub(super) enum Decoded<T, E> {
    Value(T),
    Error(E),
}

impl<T: Serialize + DeserializeOwned> Coding<T> {
    pub(super) fn json() -> Self {
        Self {
            encode: |value| serde_json::to_vec(value).map(Bytes::from),
            decode: |bytes| serde_json::from_slice(bytes),
        }
    }
}

impl Coding<Bytes> {
    pub(super) fn raw() -> Self {
        Self { encode: |bytes| Ok(bytes.clone()), decode: |bytes| Ok(bytes.clone()) }
    }
}

impl<T, E> Codec<T, E> {
    pub(super) fn decode(&self, kept: &Bytes) -> serde_json::Result<Decoded<T, E>> {
        match (answers::read(kept), &self.errors) {
            (Some((true, value)), _) => (self.value.decode)(&value).map(Decoded::Value),
            (Some((false, error)), Some(errors)) => {
                (errors.coding.decode)(&error).map(Decoded::Error)
            }
            (Some((false, _)), None) => Err(serde_json::Error::custom(
                "it is an error that was kept, and this call does not say keep_errors(…)",
            )),
            (None, _) => Err(serde_json::Error::custom("something else has kept it")),
        }
    }
}
