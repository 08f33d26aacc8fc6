//! The record and its transitions.
//!
//! ```text
//!            claim                     complete
//!   absent ─────────▶ in progress ───────────────▶ done
//!     ▲                │  │    ▲                     │
//!     └────────────────┘  └────┘                     │
//!          release        takeover, once             │
//!     ▲                   the lease is over          │
//!     └──────────────────────────────────────────────┘
//!                    the window is over
//! ```
//!
//! [`step`] is the whole protocol, as one pure function. The memory store runs it as it is; every
//! other store must give the same verdicts to the same commands.
//!
//! ```
//! use std::time::Duration;
//! use mmate_idempotency::protocol::{Claim, Command, Owner, Retention, Time, Verdict, step};
//!
//! let claim = || Command::Claim {
//!     owner: Owner::generate(),
//!     by: "reserve-stock".into(),
//!     fingerprint: None,
//!     lease: Duration::from_secs(60),
//!     trace: None,
//! };
//! let (now, retention) = (Time::from_millis(1_000), Retention::default());
//! let (record, first) = step(None, claim(), now, &retention);
//! assert!(matches!(first, Verdict::Claim(Claim::Granted(_))));
//! let (_, second) = step(record, claim(), now, &retention);
//! assert!(matches!(second, Verdict::Claim(Claim::Busy { .. })));
//! ```

mod fate;
mod record;
mod time;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mmate_core::TraceParent;

pub use fate::{Fate, is_acknowledged};
pub use record::{Digest, Done, Owner, Record, Retention, State, Work};
pub use time::Time;

/// What is asked of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the protocol has these five commands and no other")]
pub enum Command {
    /// May this attempt work on it?
    Claim {
        /// Who asks.
        owner: Owner,
        /// The subscription it asks through.
        by: Arc<str>,
        /// What the message contains; absent if that is not to be compared.
        fingerprint: Option<Digest>,
        /// For how long nobody else may work on it.
        lease: Duration,
        /// Where in its trace the work is done.
        trace: Option<TraceParent>,
    },
    /// The holder is still at it.
    Heartbeat {
        /// Who holds it.
        holder: Holder,
        /// For how long from now nobody else may work on it.
        lease: Duration,
    },
    /// The holder has done it.
    Complete {
        /// Who holds it.
        holder: Holder,
        /// The reply to be kept for duplicates.
        reply: Option<Bytes>,
    },
    /// The holder gives it back undone.
    Release {
        /// Who holds it.
        holder: Holder,
    },
    /// Forget it, if its time is over.
    Purge,
}

/// Who claims to hold a record, and by which claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a claim is named by these two")]
pub struct Holder {
    /// The owner that the claim was granted to.
    pub owner: Owner,
    /// The fence that came with it.
    pub fence: u64,
}

/// What a record answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the answers to the five commands")]
pub enum Verdict {
    /// To a claim.
    Claim(Claim),
    /// To a heartbeat, a completion or a release.
    Held(Held),
    /// To a purge: whether the record is gone.
    Purged(bool),
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the protocol has these four answers and no other")]
pub enum Claim {
    /// The asker holds it now.
    Granted(Grant),
    /// It was done before.
    Duplicate(Seen),
    /// Somebody else holds it.
    Busy {
        /// When its lease ends, unless it is prolonged: so long from now.
        remaining: Duration,
    },
    /// The key was used for another content. This is said before anything else: also while
    /// somebody works on that other content.
    Conflict,
}

/// A claim that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what a grant is; stores make them")]
pub struct Grant {
    /// Higher than in all claims of this key that were granted before.
    pub fence: u64,
    /// Which attempt at this work it is, from 1.
    pub attempt: u32,
    /// Whether somebody else held it, whose lease ran out.
    pub taken_over: bool,
}

/// What is known of work that was done before.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what is known of it; stores make them")]
pub struct Seen {
    /// Since when it is done.
    pub since: Time,
    /// The subscription that did it.
    pub by: Arc<str>,
    /// The reply that was given.
    pub reply: Option<Bytes>,
    /// Where in its trace it was done.
    pub trace: Option<TraceParent>,
}

/// Whether the asker held the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it did or it did not")]
pub enum Held {
    /// It did, and what it asked for is so. Also said to the same question asked again.
    Yes,
    /// It did not, or does no longer; nothing was changed. This is final.
    Refused,
}

/// One transition: what becomes of a record, and what the asker is told.
///
/// `now` is the store's time. A record whose time is over is treated as absent, so it makes no
/// difference when it is purged.
#[must_use]
pub fn step(
    record: Option<Record>,
    command: Command,
    now: Time,
    retention: &Retention,
) -> (Option<Record>, Verdict) {
    match command {
        Command::Claim { owner, by, fingerprint, lease, trace } => {
            let lease_until = now + lease;
            let until = lease_until + retention.of_failures();
            let (attempt, taken_over) = (1, false);
            let work =
                Work { owner, by, attempt, taken_over, fingerprint, lease_until, until, trace };
            let (record, claim) = claim(record, work, now);
            (Some(record), Verdict::Claim(claim))
        }
        Command::Heartbeat { holder, lease } => held(record, now, |record| {
            let work = record.work_of(holder)?;
            work.lease_until = now + lease;
            work.until = work.lease_until + retention.of_failures();
            Some(())
        }),
        Command::Complete { holder, reply } => held(record, now, |record| {
            if record.fence == holder.fence && matches!(record.state, State::Done(_)) {
                return Some(());
            }
            let work = record.work_of(holder)?;
            record.state = State::Done(Done {
                by: Arc::clone(&work.by),
                fingerprint: work.fingerprint,
                since: now,
                until: retention.of_done().map(|window| now + window),
                reply,
                trace: work.trace,
            });
            Some(())
        }),
        Command::Release { holder } => held(record, now, |record| {
            if record.fence == holder.fence && matches!(record.state, State::Released { .. }) {
                return Some(());
            }
            let attempt = record.work_of(holder)?.attempt;
            record.state = State::Released { attempt, until: now + retention.of_failures() };
            Some(())
        }),
        Command::Purge => match record {
            Some(record) if !record.is_over(now) => (Some(record), Verdict::Purged(false)),
            Some(_) => (None, Verdict::Purged(true)),
            None => (None, Verdict::Purged(false)),
        },
    }
}

fn claim(record: Option<Record>, mut work: Work, now: Time) -> (Record, Claim) {
    let grant = |fence, work: Work| {
        let grant = Grant { fence, attempt: work.attempt, taken_over: work.taken_over };
        (Record { fence, state: State::InProgress(work) }, Claim::Granted(grant))
    };
    let Some(record) = record else { return grant(first_fence(now), work) };
    let next_fence = record.fence.saturating_add(1);
    if record.is_over(now) {
        return grant(next_fence.max(first_fence(now)), work);
    }
    match &record.state {
        State::Released { attempt, .. } => {
            work.attempt = attempt.saturating_add(1);
            grant(next_fence, work)
        }
        State::InProgress(had) if had.owner == work.owner => {
            (work.attempt, work.taken_over) = (had.attempt, had.taken_over);
            grant(record.fence, work)
        }
        State::InProgress(had) if differ(had.fingerprint, work.fingerprint) => {
            (record, Claim::Conflict)
        }
        State::InProgress(had) if now < had.lease_until => {
            let remaining = now.until(had.lease_until);
            (record, Claim::Busy { remaining })
        }
        State::InProgress(had) => {
            work.attempt = had.attempt.saturating_add(1);
            work.taken_over = true;
            grant(next_fence, work)
        }
        State::Done(done) if differ(done.fingerprint, work.fingerprint) => {
            (record, Claim::Conflict)
        }
        State::Done(done) => {
            let (by, reply) = (Arc::clone(&done.by), done.reply.clone());
            let seen = Seen { since: done.since, by, reply, trace: done.trace };
            (record, Claim::Duplicate(seen))
        }
    }
}

/// The fence of a key's first claim: the store's time, in units of 1/1024 of a millisecond.
///
/// So fences also rise across everything that forgets a record: the end of its window, an eviction,
/// the restart of a store in memory. A count would begin at 1 again, and an effect guarded by
/// `WHERE fence < $fence` would be refused for ever.
fn first_fence(now: Time) -> u64 {
    now.as_millis().saturating_mul(1 << FENCE_BITS).clamp(1, i64::MAX as u64)
}

/// By how many bits the time is shifted to make the fence of a first claim.
pub(crate) const FENCE_BITS: u32 = 10;

/// One that is not known differs from nothing.
fn differ(one: Option<Digest>, other: Option<Digest>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

fn held(
    mut record: Option<Record>,
    now: Time,
    change: impl FnOnce(&mut Record) -> Option<()>,
) -> (Option<Record>, Verdict) {
    let changed = record.as_mut().filter(|record| !record.is_over(now)).and_then(change);
    (record, Verdict::Held(changed.map_or(Held::Refused, |()| Held::Yes)))
}

impl Record {
    /// The work, if that claim holds it. It may go on after the end of its lease as long as nobody
    /// took over: it is the takeover that ends it.
    fn work_of(&mut self, holder: Holder) -> Option<&mut Work> {
        match &mut self.state {
            State::InProgress(work) if work.owner == holder.owner => Some(work),
            _ => None,
        }
    }
}
