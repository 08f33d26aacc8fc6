//! What became of a delivery.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::reply::Answer;
use crate::trace::TraceParent;

mod error;

pub(crate) use error::brief;
pub use error::{BoxError, HandlerError, Permanent, error_chain};

/// What shall become of a delivery. Whatever it is, it is done by settling the delivery once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Handled: it is acknowledged.
    Done,
    /// Handled, with an answer for whoever asked: that is published, and when the broker has it the
    /// message is acknowledged. Without a reply address in the message it is as good as
    /// [`Done`](Self::Done).
    Answered(Answer),
    /// Its effect is there already: it is acknowledged without having run.
    Duplicate(Duplicate),
    /// It failed and is shown again later; this counts as an attempt.
    Retry {
        /// When; by the subscription's retry policy if absent.
        after: Option<Duration>,
    },
    /// It cannot be handled now and is shown again later; this counts toward nothing.
    Defer {
        /// When.
        after: Duration,
    },
    /// It will never succeed: it goes to the dead-letter queue.
    DeadLetter(DeadLetter),
}

/// How a duplicate was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Duplicate {
    /// Why there is a second copy.
    pub reason: DuplicateReason,
    /// Since when its effect is there, by the store's clock.
    pub since: Option<SystemTime>,
    /// What the first copy was answered. It is sent again, marked as replayed; without it a
    /// duplicate of a request is not answered.
    pub answer: Option<Answer>,
    /// Where in its trace the first copy was handled.
    pub first_trace: Option<TraceParent>,
}

impl Duplicate {
    /// A duplicate for this reason.
    #[must_use]
    pub fn new(reason: DuplicateReason, since: Option<SystemTime>) -> Self {
        Self { reason, since, answer: None, first_trace: None }
    }

    /// Adds what the first copy was answered.
    #[must_use]
    pub fn answered(mut self, answer: Answer) -> Self {
        self.answer = Some(answer);
        self
    }

    /// Adds where in its trace the first copy was handled, if that is known.
    #[must_use]
    pub fn first_trace(mut self, place: Option<TraceParent>) -> Self {
        self.first_trace = place;
        self
    }
}

/// Why there is a second copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DuplicateReason {
    /// The broker showed it again, since an acknowledgement did not reach it.
    Redelivered,
    /// It was published again under the same id.
    Republished,
    /// Another subscription of the same scope had it first.
    Overlap,
    /// The handler found by itself that there was nothing left to do.
    Handler,
}

impl DuplicateReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Redelivered, Self::Republished, Self::Overlap, Self::Handler];

    /// The word in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redelivered => "redelivered",
            Self::Republished => "republished",
            Self::Overlap => "overlap",
            Self::Handler => "handler",
        }
    }
}

/// Why a message is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The reason in one word.
    pub reason: DeadReason,
    /// What exactly, for a person: an error with its causes.
    pub detail: String,
}

/// The reasons for a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// Every attempt failed.
    AttemptsExhausted,
    /// The handler failed with an error that no repetition mends.
    Permanent,
    /// The body could not be decoded.
    Undecodable,
    /// Properties or headers contradict each other, or hold no usable id.
    Malformed,
    /// There is no id to recognise duplicates by.
    MissingId,
    /// The same id came before with other content.
    Conflict,
    /// The handler asked for it.
    Handler,
    /// It was handled, but nothing takes its reply any more.
    Unanswerable,
    /// Its chain of messages is longer than [`Service::max_hops`](crate::Service::max_hops) allows.
    HopLimit,
}

impl DeadReason {
    /// The word in headers, metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts-exhausted",
            Self::Permanent => "permanent",
            Self::Undecodable => "undecodable",
            Self::Malformed => "malformed",
            Self::MissingId => "missing-id",
            Self::Conflict => "conflict",
            Self::Handler => "handler",
            Self::Unanswerable => "unanswerable",
            Self::HopLimit => "hop-limit",
        }
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl DeadLetter {
    /// A dead letter for this reason. A detail of more than 1 KiB is cut to that: it goes into logs
    /// and headers, and a stranger may have a say in its length.
    #[must_use]
    pub fn new(reason: DeadReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: brief(detail.into()) }
    }
}

impl Outcome {
    /// A dead letter because the handler says so.
    #[must_use]
    pub fn dead_letter(detail: impl Into<String>) -> Self {
        Self::DeadLetter(DeadLetter::new(DeadReason::Handler, detail))
    }
}

/// What a handler may return inside its `Ok`: `()` for [`Outcome::Done`], a
/// [`Reply`](crate::Reply), or an [`Outcome`].
#[diagnostic::on_unimplemented(
    message = "a handler's `Ok` cannot be `{Self}`",
    note = "return `Result<(), HandlerError>`, `Result<Reply<T>, HandlerError>` or \
            `Result<Outcome, HandlerError>`"
)]
pub trait IntoOutcome {
    /// Whether a handler that returns this answers requests, so that it must not run for one whose
    /// reply address is not allowed, and whoever asked is told also of a failure.
    const ANSWERS: bool = false;

    /// The outcome it stands for.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Done
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_cut_to_a_kibibyte_and_never_within_a_character() {
        let detail = |text: &str| DeadLetter::new(DeadReason::Handler, text).detail;
        assert_eq!(detail(&"x".repeat(1_024)), "x".repeat(1_024));
        let cut = detail(&"äöü".repeat(1_000));
        assert!(cut.len() <= 1_024 && cut.ends_with('…'), "{} bytes", cut.len());
        assert_eq!(cut.trim_end_matches('…'), &"äöü".repeat(1_000)[..1_020]);
    }
}
