//! What must come of each cell, by the rules.

use super::cell::{Boundary, Cell, Fault, Guard, Records};

/// What must come of a cell. Nothing is ever lost, stuck or a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it can be, or it cannot")]
pub enum Expected {
    /// So many messages have a second effect.
    Doubles {
        /// At least.
        least: usize,
        /// At most.
        most: usize,
    },
    /// There is no such thing.
    Impossible(Why),
}

/// Why there is no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the legend has a letter for each")]
pub enum Why {
    /// A delivery answers no question, so there is no error that it could be answered with.
    NothingWasAsked,
    /// Between receiving and claiming nobody is asked, so no answer can get lost.
    NobodyIsAsked,
    /// The broker does not answer an acknowledgement.
    AcksHaveNoAnswer,
    /// SQLite is in the process: the claim is a call of a function in the transaction, which ends with the process
    /// or with the handler.
    ClaimInProcess,
    /// SQLite is in the process: its answer is the function's return, which neither fails nor gets lost on its way.
    AnswerInProcess,
}

impl Why {
    /// All there are.
    pub const ALL: [Self; 5] = [
        Self::NothingWasAsked,
        Self::NobodyIsAsked,
        Self::AcksHaveNoAnswer,
        Self::ClaimInProcess,
        Self::AnswerInProcess,
    ];

    /// Its letter in the table.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::NothingWasAsked => 'a',
            Self::NobodyIsAsked => 'b',
            Self::AcksHaveNoAnswer => 'c',
            Self::ClaimInProcess => 'd',
            Self::AnswerInProcess => 'e',
        }
    }
}

const NONE: Expected = Expected::Doubles { least: 0, most: 0 };
const ONE: Expected = Expected::Doubles { least: 1, most: 1 };
const AT_MOST_ONE: Expected = Expected::Doubles { least: 0, most: 1 };

/// What must come of a cell.
#[must_use]
pub fn expected(cell: Cell) -> Expected {
    if let Some(why) = impossible(cell) {
        return Expected::Impossible(why);
    }
    match cell.guard {
        // S12, S16, S24: exactly one effect, wherever it happens.
        Guard::Transactional(_) | Guard::GroupCommit(_) => NONE,
        Guard::Tracked(Records::Memory) => in_memory(cell),
        Guard::Tracked(_) => tracked(cell),
        Guard::Locked(_) => locked(cell),
    }
}

fn impossible(cell: Cell) -> Option<Why> {
    use {Boundary as B, Fault as F};
    let in_process = cell.guard.is_transactional() && cell.guard.records() == Records::Sqlite;
    match (cell.boundary, cell.fault) {
        (B::Received, F::Error) => Some(Why::NothingWasAsked),
        (B::Decoded, F::Lost) => Some(Why::NobodyIsAsked),
        (B::AckApplied, F::Error | F::Lost) => Some(Why::AcksHaveNoAnswer),
        (B::ClaimSent | B::ClaimApplied, _) if in_process => Some(Why::ClaimInProcess),
        (B::EndSent, F::Lost) | (B::EndApplied, F::Error) if in_process => {
            Some(Why::AnswerInProcess)
        }
        _ => None,
    }
}

/// With a store that both processes share.
fn tracked(cell: Cell) -> Expected {
    use {Boundary as B, Fault as F};
    match (cell.boundary, cell.fault) {
        // S12: the effect is there, and its record is not. S9: so it is if the handler fails then.
        (B::EffectApplied, F::Abort | F::Error | F::Lost) | (B::EndSent, F::Abort) => ONE,
        // S14, S19: who stood still past its lease was overtaken by a copy, or is shown its message again; its effect
        // is not fenced here.
        (B::ClaimApplied | B::HandlerStarted | B::EffectApplied | B::EndSent, F::Delayed) => {
            AT_MOST_ONE
        }
        // S6, S9, S15, S45: asked again, run again without an effect before, or known as done.
        _ => NONE,
    }
}

/// The record within the lock is that of `Tracked`, and its own claim and completion are not struck: those of the lock
/// are, with which no effect is lost or doubled. Who stands still past the lease has lost both.
fn locked(cell: Cell) -> Expected {
    use {Boundary as B, Fault as F};
    match (cell.boundary, cell.fault) {
        (B::EffectApplied, F::Abort | F::Error | F::Lost) => ONE,
        (B::ClaimApplied | B::HandlerStarted | B::EffectApplied, F::Delayed) => AT_MOST_ONE,
        _ => NONE,
    }
}

/// Memory knows what this process has done: whatever is shown to another one runs there (S6). The messages have no
/// copies. Of a process that dies, or whose connection is cut, the acknowledgement before may not have reached the broker.
fn in_memory(cell: Cell) -> Expected {
    use {Boundary as B, Fault as F};
    match (cell.boundary, cell.fault) {
        (B::EffectApplied, F::Error | F::Lost) => ONE,
        (B::EffectApplied | B::EndSent | B::EndApplied | B::AckWritten, F::Abort) => {
            Expected::Doubles { least: 1, most: 2 }
        }
        (B::Received, F::Lost) | (B::AckWritten, F::Error | F::Lost) => {
            Expected::Doubles { least: 0, most: 2 }
        }
        (_, F::Abort) => AT_MOST_ONE,
        (
            B::ClaimSent | B::ClaimApplied | B::HandlerStarted | B::EffectApplied | B::EndSent,
            F::Delayed,
        ) => AT_MOST_ONE,
        _ => NONE,
    }
}
