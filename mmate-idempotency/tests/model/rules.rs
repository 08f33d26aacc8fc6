//! What is explored: a strategy, what is wrong with it, and the bounds.

use std::sync::Arc;
use std::time::Duration;

use mmate_idempotency::protocol::{Digest, Retention, Time};

/// What one exploration is about.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) strategy: Strategy,
    pub(crate) defect: Option<Defect>,
    pub(crate) instances: u8,
    pub(crate) messages: Vec<Message>,
    /// The effect checks the fence: `WHERE fence < $fence`.
    pub(crate) fenced: bool,
    /// Heartbeats, and all else that a holder does, happen within its lease. Otherwise anybody may
    /// be paused for any time at any point.
    pub(crate) timely: bool,
    /// How long a lease is, in ticks.
    pub(crate) lease: u8,
    /// How long duplicates are recognised, in ticks; for ever if absent.
    pub(crate) window: Option<u8>,
    /// How many ticks there are at most.
    pub(crate) horizon: u8,
    /// How many faults there are at most.
    pub(crate) faults: Faults,
    /// Whether the store may forget what is in progress too.
    pub(crate) forgets_all: bool,
    pub(crate) by: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// Claim, handle, complete, with a lease.
    Tracked,
    /// Record and effect in one commit, which a lock on the key keeps apart from others.
    Transactional,
    /// A lease around the handler, and no record of what is done.
    Locked,
}

/// What a consumer, its store or its handler may do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    CheckThenMark,
    MarkBeforeHandler,
    AckWhenBusy,
    UnlockWithoutOwner,
    UnconditionalComplete,
    KeyByIdAlone,
    CaseFoldingKey,
    EvictInProgress,
    ForgetInProgress,
    NoHeartbeat,
    TakeoverBeforeTheEnd,
    NeverTakenOver,
    FenceFromOne,
    AckOnUnknownCommit,
    DeadLetterOnUnknownCommit,
    EffectOutsideOfTransaction,
    AckOnUnknownCompletion,
    RunWhenUnanswered,
}

/// A message, which comes in several copies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) scope: &'static str,
    pub(crate) id: &'static str,
    pub(crate) content: u8,
    pub(crate) copies: u8,
}

/// How often what may happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    /// An instance dies, and is started again.
    pub(crate) crashes: u8,
    /// A call, or its answer, is late or lost. What is lost is late for ever.
    pub(crate) losses: u8,
    /// The broker takes a delivery back, or does not get an acknowledgement.
    pub(crate) cuts: u8,
    /// A handler fails, or is dropped.
    pub(crate) failures: u8,
    /// The store forgets a record.
    pub(crate) forgets: u8,
}

/// A message in two copies.
pub(crate) const A: Message = Message { scope: "s", id: "a", content: 0, copies: 2 };

impl Rules {
    /// Two instances, one message in two copies, no faults.
    pub(crate) fn of(strategy: Strategy) -> Self {
        Self {
            strategy,
            defect: None,
            instances: 2,
            messages: vec![A],
            fenced: true,
            timely: false,
            lease: 2,
            window: None,
            horizon: 4,
            faults: Faults::default(),
            forgets_all: false,
            by: "s".into(),
        }
    }

    /// With a defect.
    pub(crate) fn broken(self, defect: Defect) -> Self {
        Self { defect: Some(defect), ..self }
    }

    pub(crate) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// Whether there is nothing that a second effect could be excused by.
    pub(crate) fn is_exact(&self) -> bool {
        let Faults { crashes, losses, forgets, .. } = self.faults;
        let remembers = forgets == 0 && self.window.is_none();
        match self.strategy {
            Strategy::Transactional => remembers,
            Strategy::Tracked => remembers && self.timely && crashes == 0 && losses == 0,
            Strategy::Locked => false,
        }
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.strategy == Strategy::Locked
    }

    /// Where the store has the record of a message.
    pub(crate) fn slot(&self, message: u8) -> usize {
        let name = |message: &Message| {
            let scope = if self.has(Defect::KeyByIdAlone) { "" } else { message.scope };
            let folds = self.has(Defect::CaseFoldingKey);
            let id = if folds { message.id.to_lowercase() } else { message.id.to_owned() };
            (scope, id)
        };
        let name_of_this = name(&self.messages[usize::from(message)]);
        self.messages
            .iter()
            .position(|other| name(other) == name_of_this)
            .expect("a message is one of the messages")
    }

    /// Whether another message has the same key and another content.
    pub(crate) fn is_in_conflict(&self, message: u8) -> bool {
        let this = self.messages[usize::from(message)];
        self.messages.iter().any(|other| {
            (other.scope, other.id) == (this.scope, this.id) && other.content != this.content
        })
    }

    pub(crate) fn digest(&self, message: u8) -> Digest {
        Digest::from_bytes([self.messages[usize::from(message)].content; 16])
    }

    pub(crate) fn retention(&self) -> Retention {
        self.window.map_or(Retention::unlimited(), |ticks| Retention::window(millis(ticks)))
    }
}

/// A tick is a millisecond, the least that a store's clock moves by.
pub(crate) fn millis(ticks: u8) -> Duration {
    Duration::from_millis(u64::from(ticks))
}

pub(crate) fn time(tick: u8) -> Time {
    Time::from_millis(1 + u64::from(tick))
}
