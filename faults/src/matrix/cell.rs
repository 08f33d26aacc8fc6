//! What is varied.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place on the way of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "the way of a message has these")]
pub enum Boundary {
    /// The delivery has come out of the connection.
    Received,
    /// The message is read, and nobody was asked about it yet.
    Decoded,
    /// The claim is about to be sent.
    ClaimSent,
    /// The store has done it, and its answer is on its way.
    ClaimApplied,
    /// The handler was entered.
    HandlerStarted,
    /// The effect is written: committed, or within the transaction.
    EffectApplied,
    /// The completion, or the commit, is about to be sent.
    EndSent,
    /// The store has done it, and its answer is on its way.
    EndApplied,
    /// The acknowledgement is about to be written.
    AckWritten,
    /// It was handed over to the connection.
    AckApplied,
}

/// What happens there, once, to one of the two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "the rules name these")]
pub enum Fault {
    /// SIGKILL.
    Abort,
    /// Who asked gets an error: from the store or the handler, or by a cut connection.
    Error,
    /// Nothing comes back; who waits gives up when its time limit is over.
    Lost,
    /// SIGSTOP, and SIGCONT when the lease is over.
    Delayed,
}

/// A strategy and where its records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "the strategies there are")]
pub enum Guard {
    /// `Tracked`; its effects are in a database of their own.
    Tracked(Records),
    /// `Transactional`.
    Transactional(Records),
    /// `Transactional` with group commit.
    GroupCommit(Records),
    /// `Locked` by a key that messages share, around `Tracked`; both are in one store, and what the boundaries name a
    /// claim and its completion are the lock's claim and its release.
    Locked(Records),
}

/// Where records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "the stores there are")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Records {
    Memory,
    Sqlite,
    Postgres,
    MariaDb,
    Redis,
}

/// One field of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "its three dimensions")]
pub struct Cell {
    /// Who guards the handler.
    pub guard: Guard,
    /// Where it happens.
    pub boundary: Boundary,
    /// What happens.
    pub fault: Fault,
}

impl Boundary {
    /// In the order of a message's way.
    pub const ALL: [Self; 10] = [
        Self::Received,
        Self::Decoded,
        Self::ClaimSent,
        Self::ClaimApplied,
        Self::HandlerStarted,
        Self::EffectApplied,
        Self::EndSent,
        Self::EndApplied,
        Self::AckWritten,
        Self::AckApplied,
    ];
}

impl Fault {
    /// From the hardest on.
    pub const ALL: [Self; 4] = [Self::Abort, Self::Error, Self::Lost, Self::Delayed];
}

impl Guard {
    /// All there are.
    pub const ALL: [Self; 15] = [
        Self::Tracked(Records::Memory),
        Self::Tracked(Records::Sqlite),
        Self::Tracked(Records::Postgres),
        Self::Tracked(Records::MariaDb),
        Self::Tracked(Records::Redis),
        Self::Transactional(Records::Sqlite),
        Self::Transactional(Records::Postgres),
        Self::Transactional(Records::MariaDb),
        Self::GroupCommit(Records::Sqlite),
        Self::GroupCommit(Records::Postgres),
        Self::GroupCommit(Records::MariaDb),
        Self::Locked(Records::Sqlite),
        Self::Locked(Records::Postgres),
        Self::Locked(Records::MariaDb),
        Self::Locked(Records::Redis),
    ];

    /// Where its records are.
    #[must_use]
    pub fn records(self) -> Records {
        match self {
            Self::Tracked(records)
            | Self::Transactional(records)
            | Self::GroupCommit(records)
            | Self::Locked(records) => records,
        }
    }

    /// Whether effect and record are in one transaction.
    #[must_use]
    pub fn is_transactional(self) -> bool {
        matches!(self, Self::Transactional(_) | Self::GroupCommit(_))
    }
}

impl Cell {
    /// A field of the matrix.
    #[must_use]
    pub fn new(guard: Guard, boundary: Boundary, fault: Fault) -> Self {
        Self { guard, boundary, fault }
    }

    /// The whole matrix, one fault after the other.
    pub fn all() -> impl Iterator<Item = Self> {
        Fault::ALL.into_iter().flat_map(|fault| {
            Boundary::ALL.into_iter().flat_map(move |boundary| {
                Guard::ALL.into_iter().map(move |guard| Self { guard, boundary, fault })
            })
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {}", self.guard, self.boundary, self.fault)
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tracked(records) => write!(f, "Tracked {records}"),
            Self::Transactional(records) => write!(f, "Transactional {records}"),
            Self::GroupCommit(records) => write!(f, "group commit {records}"),
            Self::Locked(records) => write!(f, "Locked {records}"),
        }
    }
}

impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
            Self::MariaDb => "MariaDB",
            Self::Redis => "Redis",
        })
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Received => "received",
            Self::Decoded => "decoded",
            Self::ClaimSent => "claim sent",
            Self::ClaimApplied => "claim applied",
            Self::HandlerStarted => "handler started",
            Self::EffectApplied => "effect applied",
            Self::EndSent => "complete or commit sent",
            Self::EndApplied => "complete or commit applied",
            Self::AckWritten => "ack written",
            Self::AckApplied => "ack applied",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Abort => "abort",
            Self::Error => "error answer",
            Self::Lost => "answer lost",
            Self::Delayed => "delayed past the lease",
        })
    }
}
