//! Counts of what became of every message, and the law they keep.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::outcome::{DeadReason, DuplicateReason, Outcome};

/// What became of the messages of a subscription or a service, counted at one moment.
///
/// At every moment, exactly: [`fetched`](Self::fetched) is the sum of everything that became of
/// them and of what is in flight ([`is_conserved`](Self::is_conserved)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Taken up for handling.
    pub fetched: u64,
    /// Handled successfully, with an effect.
    pub succeeded: u64,
    /// Failed, and to be tried again.
    pub retried: u64,
    /// Sent to the dead-letter queue, conflicts not included.
    pub dead_lettered: u64,
    /// Acknowledged without running, since the effect was there.
    pub duplicates: Duplicates,
    /// Shown again later without counting as an attempt.
    pub deferred: u64,
    /// Dead-lettered, since the same id came with other content.
    pub conflicts: u64,
    /// Handled successfully without protection against duplicates, though it was asked for.
    pub unprotected: u64,
    /// Being handled now.
    pub in_flight: u64,
    /// Beside the law: acknowledged untouched, since the subscription's filters do not take them.
    pub filtered: u64,
    /// Beside the law: redeliveries after a lost connection that were settled by the handling which
    /// this process had begun before.
    pub adopted: u64,
    /// Beside the law: replies that were published.
    pub replied: u64,
    /// Beside the law: replies that were to be published, and were not.
    pub replies_lost: u64,
    /// Beside the law: settlements that did not reach the broker, which shows the message again.
    pub settlements_lost: u64,
}

/// Duplicates by why there was a second copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Duplicates {
    /// The broker showed it again.
    pub redelivered: u64,
    /// It was published again.
    pub republished: u64,
    /// Another subscription of the scope had it.
    pub overlap: u64,
    /// The handler said so.
    pub handler: u64,
}

impl Duplicates {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.redelivered + self.republished + self.overlap + self.handler
    }

    fn of(&mut self, reason: DuplicateReason) -> &mut u64 {
        match reason {
            DuplicateReason::Redelivered => &mut self.redelivered,
            DuplicateReason::Republished => &mut self.republished,
            DuplicateReason::Overlap => &mut self.overlap,
            DuplicateReason::Handler => &mut self.handler,
        }
    }
}

impl Counts {
    /// Whether everything that was fetched is accounted for.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.fetched
            == self.succeeded
                + self.retried
                + self.dead_lettered
                + self.duplicates.total()
                + self.deferred
                + self.conflicts
                + self.unprotected
                + self.in_flight
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.fetched += other.fetched;
        self.succeeded += other.succeeded;
        self.retried += other.retried;
        self.dead_lettered += other.dead_lettered;
        self.duplicates.redelivered += other.duplicates.redelivered;
        self.duplicates.republished += other.duplicates.republished;
        self.duplicates.overlap += other.duplicates.overlap;
        self.duplicates.handler += other.duplicates.handler;
        self.deferred += other.deferred;
        self.conflicts += other.conflicts;
        self.unprotected += other.unprotected;
        self.in_flight += other.in_flight;
        self.filtered += other.filtered;
        self.adopted += other.adopted;
        self.replied += other.replied;
        self.replies_lost += other.replies_lost;
        self.settlements_lost += other.settlements_lost;
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, counts| {
            sum += counts;
            sum
        })
    }
}

/// The live counts of a service. Cheap to clone; still readable after the service has stopped.
#[derive(Debug, Clone)]
pub struct Stats {
    subscriptions: Arc<[(Arc<str>, Arc<Ledger>)]>,
}

impl Stats {
    pub(crate) fn new(subscriptions: Vec<(Arc<str>, Arc<Ledger>)>) -> Self {
        Self { subscriptions: subscriptions.into() }
    }

    /// The counts of all subscriptions together. Each subscription's are of one moment.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.subscriptions.iter().map(|(_, ledger)| ledger.counts()).sum()
    }

    /// The counts of one subscription, by the name it was given.
    #[must_use]
    pub fn subscription(&self, name: &str) -> Option<Counts> {
        self.subscriptions.iter().find(|(had, _)| **had == *name).map(|(_, l)| l.counts())
    }

    /// The counts of each subscription, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.subscriptions.iter().map(|(name, ledger)| (&**name, ledger.counts()))
    }
}

/// The counts of one subscription. Each change is one step under a lock, so a reader never sees a
/// message that is nowhere.
pub(crate) struct Ledger {
    counts: Mutex<Counts>,
    exported: Exported,
}

/// The same numbers through the `metrics` facade.
struct Exported {
    labels: [(&'static str, Arc<str>); 2],
    fetched: Counter,
    succeeded: Counter,
    retried: Counter,
    deferred: Counter,
    unprotected: Counter,
    in_flight: Gauge,
    filtered: Counter,
    adopted: Counter,
    replied: Counter,
    replies_lost: Counter,
    settlements_lost: Counter,
    handling: Histogram,
    settling: Histogram,
}

impl Ledger {
    pub(crate) fn new(service: &Arc<str>, subscription: &Arc<str>) -> Self {
        describe();
        let labels = [("service", Arc::clone(service)), ("subscription", Arc::clone(subscription))];
        let outcome = |outcome: &'static str| {
            let [service, subscription] = labels.clone();
            counter!(OUTCOMES, "outcome" => outcome, service.0 => service.1,
                subscription.0 => subscription.1)
        };
        let exported = Exported {
            fetched: counter!(FETCHED, &labels),
            succeeded: outcome("succeeded"),
            retried: outcome("retried"),
            deferred: outcome("deferred"),
            unprotected: outcome("unprotected"),
            in_flight: gauge!(IN_FLIGHT, &labels),
            filtered: counter!(FILTERED, &labels),
            adopted: counter!(ADOPTED, &labels),
            replied: counter!(REPLIED, &labels),
            replies_lost: counter!(REPLIES_LOST, &labels),
            settlements_lost: counter!(SETTLEMENTS_LOST, &labels),
            handling: histogram!(HANDLING, &labels),
            settling: histogram!(SETTLING, &labels),
            labels,
        };
        Self { counts: Mutex::default(), exported }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while the lock is held; and numbers cannot be half-written.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.lock()
    }

    pub(crate) fn fetched(&self) {
        let mut counts = self.lock();
        counts.fetched += 1;
        counts.in_flight += 1;
        drop(counts);
        self.exported.fetched.increment(1);
        self.exported.in_flight.increment(1.0);
    }

    pub(crate) fn finished(&self, outcome: &Outcome, unprotected: bool) {
        let mut counts = self.lock();
        counts.in_flight -= 1;
        match outcome {
            Outcome::Done | Outcome::Answered(_) if unprotected => counts.unprotected += 1,
            Outcome::Done | Outcome::Answered(_) => counts.succeeded += 1,
            Outcome::Duplicate(duplicate) => *counts.duplicates.of(duplicate.reason) += 1,
            Outcome::Retry { .. } => counts.retried += 1,
            Outcome::Defer { .. } => counts.deferred += 1,
            Outcome::DeadLetter(letter) if letter.reason == DeadReason::Conflict => {
                counts.conflicts += 1;
            }
            Outcome::DeadLetter(_) => counts.dead_lettered += 1,
        }
        drop(counts);
        self.exported.finished(outcome, unprotected);
    }

    pub(crate) fn filtered(&self) {
        self.lock().filtered += 1;
        self.exported.filtered.increment(1);
    }

    /// How long a message was with middleware and handler.
    pub(crate) fn handled_within(&self, time: Duration) {
        self.exported.handling.record(time);
    }

    /// How long it then took to settle it.
    pub(crate) fn settled_within(&self, time: Duration) {
        self.exported.settling.record(time);
    }

    pub(crate) fn adopted(&self) {
        self.lock().adopted += 1;
        self.exported.adopted.increment(1);
    }

    pub(crate) fn replied(&self) {
        self.lock().replied += 1;
        self.exported.replied.increment(1);
    }

    pub(crate) fn reply_lost(&self) {
        self.lock().replies_lost += 1;
        self.exported.replies_lost.increment(1);
    }

    pub(crate) fn settlement_lost(&self) {
        self.lock().settlements_lost += 1;
        self.exported.settlements_lost.increment(1);
    }
}

impl Exported {
    fn finished(&self, outcome: &Outcome, unprotected: bool) {
        self.in_flight.decrement(1.0);
        let [service, subscription] = self.labels.clone();
        match outcome {
            Outcome::Done | Outcome::Answered(_) if unprotected => self.unprotected.increment(1),
            Outcome::Done | Outcome::Answered(_) => self.succeeded.increment(1),
            Outcome::Retry { .. } => self.retried.increment(1),
            Outcome::Defer { .. } => self.deferred.increment(1),
            Outcome::Duplicate(duplicate) => {
                counter!(OUTCOMES, "outcome" => "duplicate", "reason" => duplicate.reason.as_str(),
                    service.0 => service.1, subscription.0 => subscription.1)
                .increment(1);
            }
            Outcome::DeadLetter(letter) => {
                let outcome = match letter.reason {
                    DeadReason::Conflict => "conflict",
                    _ => "dead-lettered",
                };
                counter!(OUTCOMES, "outcome" => outcome, "reason" => letter.reason.as_str(),
                    service.0 => service.1, subscription.0 => subscription.1)
                .increment(1);
            }
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts().fmt(f)
    }
}

const FETCHED: &str = "mmate_fetched_total";
const OUTCOMES: &str = "mmate_outcomes_total";
const IN_FLIGHT: &str = "mmate_in_flight";
const FILTERED: &str = "mmate_filtered_total";
const HANDLING: &str = "mmate_handling_seconds";
const SETTLING: &str = "mmate_settling_seconds";
const ADOPTED: &str = "mmate_adopted_total";
const REPLIED: &str = "mmate_replies_total";
const REPLIES_LOST: &str = "mmate_replies_lost_total";
const SETTLEMENTS_LOST: &str = "mmate_settlements_lost_total";

fn describe() {
    describe_counter!(FETCHED, "Messages taken up for handling.");
    describe_counter!(
        OUTCOMES,
        "What became of them, by outcome (succeeded, retried, deferred, duplicate, dead-lettered, \
         conflict, unprotected) and, for duplicates and dead letters, by reason."
    );
    describe_gauge!(IN_FLIGHT, "Messages being handled now.");
    describe_counter!(
        FILTERED,
        "Messages acknowledged untouched, for the filters of a subscription."
    );
    describe_histogram!(
        HANDLING,
        Unit::Seconds,
        "The time that a message was with middleware and handler."
    );
    describe_histogram!(
        SETTLING,
        Unit::Seconds,
        "The time that settling it took then: for a retry or a dead letter, until the broker had \
         confirmed the copy."
    );
    describe_counter!(
        ADOPTED,
        "Redeliveries after a lost connection that were settled by the handling which had begun \
         before it."
    );
    describe_counter!(REPLIED, "Replies to requests that were published.");
    describe_counter!(REPLIES_LOST, "Replies to requests that could not be published.");
    describe_counter!(SETTLEMENTS_LOST, "Settlements that did not reach the broker.");
}
