//! What goes wrong in a store.

use std::fmt;

use mmate_core::BoxError;

/// A store did not do what it was asked.
#[derive(Debug)]
pub struct StoreError {
    attempted: &'static str,
    kind: StoreErrorKind,
    source: BoxError,
}

/// What a failure of a store means for what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "it was not done, or nobody knows, or it never will be"
)]
pub enum StoreErrorKind {
    /// Nothing was changed, and it may work later.
    Unavailable,
    /// It may have been done or not. Asking again with the same owner tells.
    Unknown,
    /// Nothing was changed, and no repetition mends it: somebody must change the configuration or
    /// the database.
    Permanent,
}

impl StoreError {
    /// A failure to do what `attempted` says, such as `"claim a key"`.
    #[must_use]
    pub fn new(kind: StoreErrorKind, attempted: &'static str, source: impl Into<BoxError>) -> Self {
        Self { attempted, kind, source: source.into() }
    }

    /// What it means for what was asked.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// What it is due to.
    pub(crate) fn cause(&self) -> String {
        mmate_core::error_chain(&*self.source)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            StoreErrorKind::Unavailable => "the store is not available",
            StoreErrorKind::Unknown => "it is not known whether it was done",
            StoreErrorKind::Permanent => "the store cannot do it",
        };
        write!(f, "failed to {}: {kind}: {}", self.attempted, self.cause())
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}
