//! What the answers to a claim mean for a delivery.

use std::time::{Duration, SystemTime};

use mmate_core::{Context, DeadLetter, DeadReason, Duplicate, DuplicateReason, Outcome};

use super::answers;
use crate::protocol::Seen;

/// The message was done before; it is answered as it was then.
pub(super) fn duplicate(context: &Context, seen: &Seen) -> Outcome {
    let reason = if *seen.by != *context.subscription() {
        DuplicateReason::Overlap
    } else {
        of_copy(context)
    };
    let since = SystemTime::from(seen.since);
    tracing::debug!(
        message_id = context.message_id().map(tracing::field::display),
        message_type = context.message_type(),
        correlation_id = context.meta().correlation_id.as_ref().map(tracing::field::display),
        reason = reason.as_str(),
        done_by = &*seen.by,
        done_at_ms = seen.since.as_millis(),
        first_trace = seen.trace.map(tracing::field::display),
        "a duplicate is acknowledged without being handled"
    );
    if let Some(first) = seen.trace {
        context.link_trace(first);
    }
    let duplicate = Duplicate::new(reason, Some(since)).first_trace(seen.trace);
    Outcome::Duplicate(match seen.reply.as_ref().and_then(answers::answer) {
        Some(answer) => duplicate.answered(answer),
        None => duplicate,
    })
}

/// Somebody works on the message, and the subscription was told to drop copies meanwhile.
pub(super) fn dropped(context: &Context) -> Outcome {
    tracing::debug!(
        message_id = context.message_id().map(tracing::field::display),
        "a copy of a message that is in progress is dropped, as was asked"
    );
    Outcome::Duplicate(Duplicate::new(of_copy(context), None))
}

/// Why there is a copy, as far as the broker knows. That it was redelivered is no ground for
/// anything else.
fn of_copy(context: &Context) -> DuplicateReason {
    if context.redelivered() { DuplicateReason::Redelivered } else { DuplicateReason::Republished }
}

/// The message's key was used for another content.
pub(super) fn conflict(context: &Context) -> Outcome {
    let detail = format!(
        "the key of this message was used before with another content, in the scope {:?}",
        context.scope()
    );
    Outcome::DeadLetter(DeadLetter::new(DeadReason::Conflict, detail))
}

/// Somebody works on the message, for so long at most.
pub(super) fn busy(context: &Context, remaining: Duration) -> Outcome {
    let after = busy_delay(context.deferrals(), remaining, fastrand::f64());
    tracing::debug!(
        message_id = context.message_id().map(tracing::field::display),
        ?after,
        "a message is deferred, since somebody works on a copy of it"
    );
    Outcome::Defer { after }
}

/// Somebody holds the message's lock, for so long at most.
pub(super) fn locked(context: &Context, remaining: Duration) -> Outcome {
    let after = busy_delay(context.deferrals(), remaining, fastrand::f64());
    tracing::debug!(
        message_id = context.message_id().map(tracing::field::display),
        ?after,
        "a message is deferred, since somebody holds its lock"
    );
    Outcome::Defer { after }
}

/// Somebody holds the message's lock, and the lock was told to drop messages meanwhile.
pub(super) fn dropped_at_lock(context: &Context) -> Outcome {
    tracing::debug!(
        message_id = context.message_id().map(tracing::field::display),
        "a message whose lock somebody holds is dropped, as was asked"
    );
    Outcome::Duplicate(Duplicate::new(DuplicateReason::Handler, None))
}

/// The first look comes soon, since most handlers are quick; the later ones at doubling distances.
const FIRST_LOOK: Duration = Duration::from_millis(500);
const LONGEST_LOOK: Duration = Duration::from_secs(30);

fn busy_delay(deferrals: u32, remaining: Duration, random: f64) -> Duration {
    let delay = FIRST_LOOK.saturating_mul(1 << deferrals.min(10)).min(LONGEST_LOOK);
    // Nothing is to be seen long after the lease is over.
    delay.min(remaining.max(FIRST_LOOK)).mul_f64(1.0 - 0.5 * random)
}

/// The store did not answer, or it is not known what it did: shown again when it may be back.
pub(super) fn trouble() -> Outcome {
    Outcome::Defer { after: Duration::from_secs(5).mul_f64(1.0 - 0.5 * fastrand::f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S3
    #[test]
    fn copies_of_a_message_in_progress_come_back_ever_later_and_never_at_once() {
        let hour = Duration::from_secs(3600);
        let delays: Vec<_> =
            [0, 1, 2, 20, u32::MAX].map(|n| busy_delay(n, hour, 0.0).as_millis()).into();
        assert_eq!(delays, [500, 1000, 2000, 30_000, 30_000]);
        assert_eq!(busy_delay(0, Duration::ZERO, 1.0), Duration::from_millis(250));
        assert_eq!(busy_delay(9, Duration::from_secs(2), 0.0), Duration::from_secs(2));
    }
}
