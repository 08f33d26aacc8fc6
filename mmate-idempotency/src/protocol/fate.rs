//! What the answers of a store mean for a delivery.
//!
//! [`Tracked`](crate::Tracked) decides by these functions whether a message runs, and whether it is
//! acknowledged. They are pure, so that a model checker can put them through everything that may
//! happen around them.

use std::time::Duration;

use super::{Claim, Grant, Held, Seen};

/// What becomes of a delivery once its claim was asked for.
///
/// ```
/// use mmate_idempotency::protocol::{Claim, Fate};
///
/// assert_eq!(Fate::of_claim(Some(Claim::Conflict)), Fate::Conflict);
/// // Not knowing is no reason to run, nor to acknowledge.
/// assert_eq!(Fate::of_claim(None), Fate::Unanswered);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the four answers to a claim, and none")]
pub enum Fate {
    /// Its handler runs.
    Run(Grant),
    /// It is acknowledged without being handled, since it is done.
    Skip(Seen),
    /// It is shown again, within this time, since somebody else works on it.
    Busy(Duration),
    /// It is put among the dead letters.
    Conflict,
    /// It is shown again, since there is no answer.
    Unanswered,
}

impl Fate {
    /// By the answer to the claim; `None` if there is none.
    #[must_use]
    pub fn of_claim(answer: Option<Claim>) -> Self {
        match answer {
            Some(Claim::Granted(grant)) => Self::Run(grant),
            Some(Claim::Duplicate(seen)) => Self::Skip(seen),
            Some(Claim::Busy { remaining }) => Self::Busy(remaining),
            Some(Claim::Conflict) => Self::Conflict,
            None => Self::Unanswered,
        }
    }
}

/// Whether a delivery that was handled is acknowledged, by the answer to the completion; `None` if
/// there is none. If not, it is shown again, and the record decides.
///
/// ```
/// use mmate_idempotency::protocol::{Held, is_acknowledged};
///
/// assert!(is_acknowledged(Some(Held::Yes)));
/// assert!(!is_acknowledged(Some(Held::Refused)));
/// assert!(!is_acknowledged(None));
/// ```
#[must_use]
pub fn is_acknowledged(completed: Option<Held>) -> bool {
    completed == Some(Held::Yes)
}
