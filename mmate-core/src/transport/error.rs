//! What can go wrong between a service and its broker.

use std::fmt;

use crate::message::InvalidMessage;
use crate::outcome::BoxError;

/// A failure of the broker or on the way to it: what was attempted, and why it failed.
#[derive(Debug)]
pub struct TransportError {
    kind: TransportErrorKind,
    attempted: String,
    hint: Option<String>,
    source: Option<BoxError>,
}

/// The kinds of [`TransportError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// Nobody answers at the address. Passes by itself, perhaps.
    Unreachable,
    /// The broker refuses the credentials or the virtual host.
    AccessRefused,
    /// The broker does not show that it is the one that is meant: its certificate does not verify.
    Untrusted,
    /// The broker knows us but does not permit this.
    Forbidden,
    /// A queue or an exchange is not there.
    NotFound,
    /// A queue is there with other arguments than asked for.
    Mismatch,
    /// Another connection holds the queue for itself.
    Locked,
    /// The address or a setting cannot be used.
    Configuration,
    /// The connection was closed by us.
    Closed,
    /// Anything else.
    Other,
}

impl TransportError {
    /// An error of this kind; `attempted` is what was tried, such as `declare queue orders`.
    #[must_use]
    pub fn new(kind: TransportErrorKind, attempted: impl Into<String>) -> Self {
        Self { kind, attempted: attempted.into(), hint: None, source: None }
    }

    /// Adds the error below it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            TransportErrorKind::Unreachable => "the broker is unreachable",
            TransportErrorKind::AccessRefused => "the broker refuses the credentials",
            TransportErrorKind::Untrusted => "the broker cannot be trusted",
            TransportErrorKind::Forbidden => "the broker does not permit it",
            TransportErrorKind::NotFound => "not found",
            TransportErrorKind::Mismatch => "it exists with other arguments",
            TransportErrorKind::Locked => "another connection holds it exclusively",
            TransportErrorKind::Configuration => "the configuration cannot be used",
            TransportErrorKind::Closed => "the connection is closed",
            TransportErrorKind::Other => "the broker failed",
        };
        write!(f, "failed to {}: {what}", self.attempted)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for TransportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Why a message was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The message cannot be published as it is.
    #[error(transparent)]
    Invalid(#[from] InvalidMessage),
    /// No queue takes it.
    #[error("no queue takes the {destination}; bind one, or publish with allow_unroutable()")]
    Unroutable {
        /// Where it was to go.
        destination: String,
    },
    /// The broker said no.
    #[error("the broker refused the message for the {destination}: {reason}")]
    Refused {
        /// Where it was to go.
        destination: String,
        /// What the broker said.
        reason: String,
    },
    /// Nobody knows: the connection was cut, or the confirmation did not come in time. Publishing
    /// it again with the same id is safe.
    #[error("it is not known whether the message for the {destination} was stored: {reason}")]
    Ambiguous {
        /// Where it was to go.
        destination: String,
        /// What happened.
        reason: String,
    },
    /// The connection was closed by us.
    #[error("the connection is closed")]
    Closed,
}
