//! All there is at one moment: the broker's queue, the instances, the store, the effects.

use mmate_idempotency::protocol::{Holder, Owner, Record};

use super::rules::{Faults, Rules};
use super::wrong::Wrong;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: u8,
    /// By message.
    pub(crate) queues: Vec<Queue>,
    /// In order, as it makes no difference which is which.
    pub(crate) instances: Vec<Phase>,
    /// By the first message with that key.
    pub(crate) slots: Vec<Slot>,
    /// What is on its way to the store while nobody waits for its answer any more. It may arrive
    /// at any time, or never. In order.
    pub(crate) strays: Vec<Stray>,
    /// By message.
    pub(crate) books: Vec<Book>,
    /// Which faults may still happen.
    pub(crate) left: Faults,
    /// What went wrong on the way here.
    pub(crate) wrong: Option<Wrong>,
}

/// Where the copies of a message are that no instance has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Queue {
    pub(crate) ready: u8,
    /// Acknowledgements that are written and have not come to the broker yet.
    pub(crate) acking: u8,
    pub(crate) acked: u8,
    pub(crate) dead: u8,
}

/// What the store has for a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) record: Option<Record>,
    /// The highest fence that was ever granted.
    pub(crate) highest: u64,
    /// A second effect would be as documented: a lease ran out and somebody took over, or the
    /// record was forgotten or its window is over.
    pub(crate) excused: bool,
}

/// What a message has led to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Book {
    pub(crate) effects: u8,
    /// The highest fence of an effect.
    pub(crate) fence: u64,
}

/// What an instance does. Times are 0 when they are past.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    Idle,
    /// The claim is on its way. If it is granted, the lease ends then, as far as the instance
    /// knows.
    Asking {
        task: Task,
        owner: u8,
        ends: u8,
        has_checked: bool,
    },
    /// The handler runs.
    Working {
        task: Task,
        hold: Hold,
        ends: u8,
        beat: Option<u8>,
        is_lost: bool,
        affected: bool,
    },
    /// The completion, or the release, is on its way.
    Closing {
        task: Task,
        hold: Hold,
        ends: u8,
        then: Then,
    },
    /// It waits for the lock on the key, in a transaction.
    Waiting {
        task: Task,
    },
    /// The handler runs, in a transaction. The database may have ended it.
    InTransaction {
        task: Task,
        session: Option<Session>,
        affected: bool,
    },
    /// The commit is on its way.
    Committing {
        task: Task,
        session: Session,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Task {
    pub(crate) message: u8,
    /// Whether the broker still takes the instance's word for this delivery.
    pub(crate) is_ours: bool,
}

/// A claim that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Hold {
    pub(crate) owner: u8,
    /// 0 if it is not known.
    pub(crate) fence: u64,
}

/// What is asked of the store in the end, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Then {
    /// Completes.
    Complete,
    /// Releases, and acknowledges.
    Acknowledge,
    /// Releases, and shows it again.
    Retry,
    /// Releases, and puts it among the dead letters.
    DeadLetter,
}

/// A transaction in the database that holds the lock on a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Session {
    pub(crate) message: u8,
    /// When the record was written.
    pub(crate) at: u8,
    pub(crate) affected: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stray {
    Call { message: u8, call: Call },
    Session { session: Session, is_committing: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    Claim { owner: u8 },
    Beat { hold: Hold },
    Complete { hold: Hold },
    Release { hold: Hold },
}

impl World {
    pub(crate) fn new(rules: &Rules) -> Self {
        let each = rules.messages.iter();
        let queue = |copies| Queue { ready: copies, acking: 0, acked: 0, dead: 0 };
        let slot = Slot { record: None, highest: 0, excused: false };
        Self {
            now: 0,
            queues: each.map(|message| queue(message.copies)).collect(),
            instances: vec![Phase::Idle; usize::from(rules.instances)],
            slots: vec![slot; rules.messages.len()],
            strays: Vec::new(),
            books: vec![Book { effects: 0, fence: 0 }; rules.messages.len()],
            left: rules.faults,
            wrong: None,
        }
    }

    /// Whether all copies are settled, and nobody is at work.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_empty = |queue: &Queue| queue.ready == 0 && queue.acking == 0;
        self.queues.iter().all(is_empty) && self.instances.iter().all(|one| *one == Phase::Idle)
    }

    /// An owner that nobody else is. The number of one that is known nowhere any more is used
    /// again, so that the number of worlds is finite.
    pub(crate) fn fresh_owner(&self) -> u8 {
        let is_used = |owner: u8| {
            self.instances.iter().any(|phase| phase.owner() == Some(owner))
                || self.strays.iter().any(|stray| stray.owner() == Some(owner))
                || self.slots.iter().any(|slot| {
                    slot.record.as_ref().and_then(owner_of)
                        == Some(Hold { owner, fence: 0 }.owner())
                })
        };
        (1..).find(|owner| !is_used(*owner)).expect("few are in use")
    }

    /// Forgets how long ago is what is past, and which instance is which: neither makes a
    /// difference.
    pub(crate) fn normalize(&mut self, sorts: bool) {
        let now = self.now;
        for phase in &mut self.instances {
            if let Some(ends) = phase.ends_mut().filter(|ends| **ends <= now) {
                *ends = 0;
            }
        }
        if sorts {
            self.instances.sort_unstable();
        }
        self.strays.sort_unstable();
    }
}

/// Who works by a record.
pub(crate) fn owner_of(record: &Record) -> Option<Owner> {
    match &record.state {
        mmate_idempotency::protocol::State::InProgress(work) => Some(work.owner),
        _ => None,
    }
}

impl Phase {
    fn owner(&self) -> Option<u8> {
        match self {
            Self::Asking { owner, .. } => Some(*owner),
            Self::Working { hold, .. } | Self::Closing { hold, .. } => Some(hold.owner),
            _ => None,
        }
    }

    pub(crate) fn ends(&self) -> Option<u8> {
        match self {
            Self::Asking { ends, .. } | Self::Working { ends, .. } | Self::Closing { ends, .. } => {
                Some(*ends)
            }
            _ => None,
        }
    }

    fn ends_mut(&mut self) -> Option<&mut u8> {
        match self {
            Self::Asking { ends, .. } | Self::Working { ends, .. } | Self::Closing { ends, .. } => {
                Some(ends)
            }
            _ => None,
        }
    }

    pub(crate) fn task_mut(&mut self) -> Option<&mut Task> {
        match self {
            Self::Idle => None,
            Self::Asking { task, .. }
            | Self::Working { task, .. }
            | Self::Closing { task, .. }
            | Self::Waiting { task }
            | Self::InTransaction { task, .. }
            | Self::Committing { task, .. } => Some(task),
        }
    }

    pub(crate) fn session(&self) -> Option<Session> {
        match self {
            Self::InTransaction { session, .. } => *session,
            Self::Committing { session, .. } => Some(*session),
            _ => None,
        }
    }

    /// The call whose answer it waits for, other than of a heartbeat.
    pub(crate) fn call(&self) -> Option<(u8, Call)> {
        match self {
            Self::Asking { task, owner, .. } => Some((task.message, Call::Claim { owner: *owner })),
            Self::Closing { task, hold, then, .. } => {
                let call = match then {
                    Then::Complete => Call::Complete { hold: *hold },
                    _ => Call::Release { hold: *hold },
                };
                Some((task.message, call))
            }
            _ => None,
        }
    }
}

impl Stray {
    fn owner(&self) -> Option<u8> {
        match self {
            Self::Call { call, .. } => Some(match call {
                Call::Claim { owner } => *owner,
                Call::Beat { hold } | Call::Complete { hold } | Call::Release { hold } => {
                    hold.owner
                }
            }),
            Self::Session { .. } => None,
        }
    }
}

impl Hold {
    pub(crate) fn owner(self) -> Owner {
        Owner::from_bytes([self.owner; 16])
    }

    pub(crate) fn holder(self) -> Holder {
        Holder { owner: self.owner(), fence: self.fence }
    }
}
