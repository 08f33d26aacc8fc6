//! Who is inside of a lock, as it is written down by those who are.

use async_trait::async_trait;
use mmate_core::{Context, FromContext, HandlerError, Middleware, Next, Outcome};
use mmate_idempotency::LockPermit;
use sqlx::SqlitePool;

use super::cell::{Cell, Fault};

/// The key that a message's lock is of: so many messages in a row share one.
pub(crate) fn key_of(id: &str) -> String {
    const IN_A_ROW: u64 = 4;
    let digits: String = id.chars().filter(char::is_ascii_digit).collect();
    (digits.parse::<u64>().unwrap_or_default() / IN_A_ROW).to_string()
}

/// Rows are in the order in which they were committed.
pub(crate) const TABLE: &str = "visits (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, \
                                fence INTEGER NOT NULL, instance TEXT NOT NULL, \
                                enters INTEGER NOT NULL)";

/// Within the lock: what comes in writes that down before it goes on, and again before it leaves.
pub(crate) struct Visiting {
    pub(crate) pool: SqlitePool,
    pub(crate) instance: String,
}

impl Visiting {
    async fn note(&self, id: &str, lock: &LockPermit, enters: bool) -> Result<(), HandlerError> {
        let insert = "INSERT INTO visits (id, fence, instance, enters) VALUES (?, ?, ?, ?)";
        let query = sqlx::query(insert).bind(id).bind(lock.fence_i64()).bind(&self.instance);
        query.bind(enters).execute(&self.pool).await?;
        Ok(())
    }
}

#[async_trait]
impl Middleware for Visiting {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let id = context.message_id().map(ToString::to_string).unwrap_or_default();
        let lock = LockPermit::from_context(context).await?;
        self.note(&id, &lock, true).await?;
        let outcome = next.run(context).await;
        self.note(&id, &lock, false).await?;
        outcome
    }
}

/// One who came in, or left.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) id: String,
    pub(crate) fence: i64,
    pub(crate) instance: String,
    pub(crate) enters: bool,
}

/// What the steps tell.
#[derive(Debug, Default)]
pub(crate) struct Overlaps {
    /// Two who were inside of one lock, or a fence that did not rise.
    pub(crate) wrong: Vec<String>,
    /// Whether somebody came in before the one who had stood still had left.
    pub(crate) is_overtaken: bool,
}

/// Looks for two who were inside of one lock, and for fences that do not rise. Both may be of one visit of the doomed
/// process: of the last one before it was killed, which has no end, or of that in which it stood still; it is known by
/// the lower fence.
pub(crate) fn overlaps(cell: Cell, doomed: &str, steps: &[Step]) -> Overlaps {
    let mut overlaps = Overlaps::default();
    let mut inside: Vec<&Step> = Vec::new();
    let mut stopped_in = None;
    for (at, step) in steps.iter().enumerate() {
        // A process has one message in hand: what it did before is over, also if it could not say so.
        inside.retain(|other| other.instance != step.instance);
        if !step.enters {
            continue;
        }
        let mut is_excused = |older: &Step| {
            let visit = (older.id.clone(), older.fence);
            older.instance == doomed
                && match cell.fault {
                    Fault::Abort => steps[at..].iter().all(|later| later.instance != doomed),
                    Fault::Delayed => *stopped_in.get_or_insert_with(|| visit.clone()) == visit,
                    Fault::Error | Fault::Lost => false,
                }
        };
        let same_lock = |other: &Step| key_of(&other.id) == key_of(&step.id);
        for other in inside.iter().filter(|other| same_lock(other)) {
            let (older, newer) =
                if other.fence < step.fence { (*other, step) } else { (step, *other) };
            if older.fence < newer.fence && is_excused(older) {
                overlaps.is_overtaken |= cell.fault == Fault::Delayed;
            } else {
                overlaps.wrong.push(format!("both inside: {older:?} and {newer:?}"));
            }
        }
        let before = steps[..at].iter().filter(|other| same_lock(other)).map(|one| one.fence);
        if before.max().is_some_and(|highest| highest >= step.fence) && !is_excused(step) {
            overlaps.wrong.push(format!("the fence did not rise: {step:?}"));
        }
        inside.push(step);
    }
    overlaps
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Boundary, Guard, Records};
    use super::*;

    /// What steps tell, written as `+a 1 mx-000`: who comes in or leaves, with which fence and message.
    fn told(fault: Fault, steps: &[&str]) -> (usize, bool) {
        let step = |text: &&str| {
            let [who, fence, id] = text.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{text}")
            };
            let (enters, instance) = who.split_at(1);
            let (id, instance) = (id.to_owned(), instance.to_owned());
            Step { id, fence: fence.parse().unwrap(), instance, enters: enters == "+" }
        };
        let steps: Vec<_> = steps.iter().map(step).collect();
        let cell = Cell::new(Guard::Locked(Records::Sqlite), Boundary::HandlerStarted, fault);
        let overlaps = overlaps(cell, "b", &steps);
        (overlaps.wrong.len(), overlaps.is_overtaken)
    }

    #[test]
    fn one_after_the_other_and_two_in_two_locks_are_right() {
        let steps = ["+a 1 mx-000", "+b 1 mx-004", "-a 1 mx-000", "-b 1 mx-004", "+b 2 mx-001"];
        assert_eq!(told(Fault::Error, &steps), (0, false));
    }

    #[test]
    fn two_in_one_lock_are_wrong_also_if_one_of_them_is_the_doomed_one() {
        for fault in [Fault::Error, Fault::Lost] {
            assert_eq!(told(fault, &["+b 1 mx-000", "+a 2 mx-001"]), (1, false));
        }
        let goes_on = ["+b 1 mx-000", "+a 2 mx-001", "-b 1 mx-000"];
        assert_eq!(told(Fault::Abort, &goes_on), (1, false));
        assert_eq!(told(Fault::Delayed, &["+a 1 mx-000", "+b 2 mx-001"]), (1, false));
    }

    #[test]
    fn who_died_inside_is_not_there_any_more() {
        assert_eq!(told(Fault::Abort, &["+b 1 mx-000", "+a 2 mx-001"]), (0, false));
    }

    #[test]
    fn who_stood_still_is_overtaken_in_one_visit_by_a_higher_fence() {
        let once = ["+b 1 mx-000", "+a 2 mx-001", "-a 2 mx-001", "-b 1 mx-000"];
        assert_eq!(told(Fault::Delayed, &once), (0, true));
        let late = ["+a 2 mx-001", "+b 1 mx-000"];
        assert_eq!(told(Fault::Delayed, &late), (0, true));
        let again = [&once[..], &["+b 3 mx-002", "+a 4 mx-003"]].concat();
        assert_eq!(told(Fault::Delayed, &again), (1, true));
    }

    #[test]
    fn a_fence_that_does_not_rise_is_wrong() {
        for next in ["+a 1 mx-001", "+b 1 mx-001"] {
            assert_eq!(told(Fault::Error, &["+a 1 mx-000", "-a 1 mx-000", next]), (1, false));
        }
    }
}
