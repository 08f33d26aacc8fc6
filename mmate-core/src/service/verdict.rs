//! How a handling ended.

use crate::outcome::Outcome;

/// How a handling ended.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// What went wrong, for the headers of a retried message.
    pub(super) error: String,
}

impl Verdict {
    /// Whether the message needs no handling any more, and is acknowledged.
    pub(super) fn is_success(&self) -> bool {
        matches!(self.outcome, Outcome::Done | Outcome::Answered(_) | Outcome::Duplicate(_))
    }
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, error: String::new() }
    }
}
