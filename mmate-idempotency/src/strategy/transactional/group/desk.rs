//! Where messages wait for a transaction.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use mmate_core::{HandlerError, Seat};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::database::TransactionalDatabase;
use super::super::open::Open;
use crate::outbox::Written;
use crate::protocol::Claim;
use crate::store::RecordKey;
use crate::store::claim_call::ClaimCall;

/// Messages that wait, and what is known of the groups under way.
///
/// Of one key there is at most one message in all groups: a copy waits until the first one's
/// transaction is over, and is answered by what came of it.
pub(super) struct Desk<DB: TransactionalDatabase> {
    waiting: VecDeque<Waiting<DB>>,
    /// What groups are under way about.
    busy: HashSet<RecordKey>,
    lanes: usize,
    /// How many messages a group may have now, and at most.
    size: usize,
    most: usize,
}

/// A message that waits.
pub(super) struct Waiting<DB: TransactionalDatabase> {
    /// Absent if it runs without protection.
    pub(super) claim: Option<Box<ClaimCall>>,
    /// It was in a group that was rolled back.
    pub(super) alone: bool,
    pub(super) since: Instant,
    pub(super) turn: oneshot::Sender<Turn<DB>>,
}

/// What a message waits for.
pub(super) enum Turn<DB: TransactionalDatabase> {
    /// Its handler may run.
    Run(Run<DB>),
    /// Its batch may run.
    Sit(Sit),
    /// It is not to run, since its claim was not granted.
    Refused(Claim),
    /// The database does not answer.
    Trouble,
}

/// The right to run a handler in a transaction.
pub(super) struct Run<DB: TransactionalDatabase> {
    pub(super) open: Open<DB>,
    /// When the group's time is over.
    pub(super) until: Option<Instant>,
    pub(super) report: oneshot::Sender<Report<DB>>,
    pub(super) fate: oneshot::Receiver<Fate>,
}

/// A place in a batch that is handled in a transaction.
pub(super) struct Sit {
    pub(super) seat: Seat,
    /// Whether the batch has written into an outbox.
    pub(super) outbox: Written,
    pub(super) report: oneshot::Sender<BatchReport>,
    pub(super) fate: oneshot::Receiver<Fate>,
}

/// How the handling of a message in a batch ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchReport {
    /// Whether it had come to the handler.
    pub(super) took_part: bool,
    pub(super) end: End,
}

/// How a handler's run in a transaction ended.
pub(super) struct Report<DB: TransactionalDatabase> {
    /// The transaction, unless the handler has kept it.
    pub(super) open: Option<Open<DB>>,
    pub(super) end: End,
    /// What the message's record keeps for copies.
    pub(super) reply: Option<Bytes>,
}

/// What came out of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is to be committed.
    Good,
    /// It is to be rolled back.
    Bad,
    /// Nothing, since the group's time was over.
    Unfinished,
}

/// What became of a transaction, for one whose handler ran in it.
pub(super) enum Fate {
    Committed,
    /// It was rolled back, as this message's handler has it: what that returned holds.
    RolledBack,
    /// It was rolled back for this reason, which is this message's own.
    Failed(HandlerError),
    /// It was rolled back, and perhaps not for this message's sake.
    Again {
        alone: bool,
    },
    /// Nobody knows, or the database does not answer.
    Trouble,
}

impl<DB: TransactionalDatabase> Desk<DB> {
    pub(super) fn new(most: usize) -> Self {
        Self { waiting: VecDeque::new(), busy: HashSet::new(), lanes: 0, size: most, most }
    }

    pub(super) fn queue(&mut self, waiting: Waiting<DB>) {
        // Those that have waited before come first, in their order.
        let at = match waiting.alone {
            true => self.waiting.iter().take_while(|other| other.alone).count(),
            false => self.waiting.len(),
        };
        self.waiting.insert(at, waiting);
    }

    /// Puts messages that were taken, and whose handlers have not run, in front again.
    pub(super) fn put_back(&mut self, messages: impl DoubleEndedIterator<Item = Waiting<DB>>) {
        messages.rev().for_each(|waiting| self.waiting.push_front(waiting));
    }

    /// Whether another lane is to be opened; it counts as open then.
    pub(super) fn opens_lane(&mut self, most: usize) -> bool {
        let opens = self.lanes < most;
        self.lanes += usize::from(opens);
        opens
    }

    pub(super) fn close_lane(&mut self) {
        self.lanes -= 1;
    }

    /// How many wait, of those that make a full group.
    pub(super) fn gathered(&self) -> usize {
        self.waiting.len().min(self.size)
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= self.size || self.waiting.front().is_some_and(|first| first.alone)
    }

    /// Since when the next group waits, unless it is full, or nobody is in it.
    pub(super) fn gathers_since(&self) -> Option<Instant> {
        let is_free = |waiting: &&Waiting<DB>| {
            waiting.claim.as_ref().is_none_or(|claim| !self.busy.contains(&claim.key))
        };
        if self.is_full() {
            None
        } else {
            self.waiting.iter().find(is_free).map(|first| first.since)
        }
    }

    /// The next group: the first messages about keys that no group is under way about.
    pub(super) fn take(&mut self) -> Vec<Waiting<DB>> {
        let mut taken: Vec<Waiting<DB>> = Vec::with_capacity(self.gathered());
        let mut left = VecDeque::new();
        // Keys of messages that stay: those behind them stay too, in their order.
        let mut stays = HashSet::new();
        while taken.len() < self.size
            && taken.last().is_none_or(|last| !last.alone)
            && let Some(waiting) = self.waiting.pop_front()
        {
            if waiting.turn.is_closed() {
                continue;
            }
            if waiting.alone && !taken.is_empty() {
                left.push_back(waiting);
                break;
            }
            let key = waiting.claim.as_ref().map(|claim| &claim.key);
            match key {
                Some(key) if self.busy.contains(key) || stays.contains(key) => {
                    stays.insert(key.clone());
                    left.push_back(waiting);
                }
                _ => {
                    self.busy.extend(key.cloned());
                    taken.push(waiting);
                }
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        taken
    }

    /// A group about these keys is over.
    pub(super) fn over(&mut self, keys: &[RecordKey]) {
        for key in keys {
            self.busy.remove(key);
        }
    }

    /// A group of so many was committed: the next one may be larger.
    pub(super) fn grow(&mut self, size: usize) {
        if size >= self.size {
            self.size = self.size.saturating_mul(2).min(self.most);
        }
    }

    /// A group of so many was rolled back: where many fail, small groups lose less.
    pub(super) fn shrink(&mut self, size: usize) {
        self.size = self.size.min((size / 2).max(1));
    }
}
