//! What came of a cell.

use super::cell::{Cell, Guard, Records};
use super::inside::key_of;
use super::rules::Expected;
use crate::books::Verdict;

/// What came of a cell.
#[derive(Debug)]
#[non_exhaustive]
pub struct Observed {
    /// Which one.
    pub cell: Cell,
    /// What must come of it.
    pub expected: Expected,
    /// The books against the effects, the dead letters and the queues.
    pub verdict: Verdict,
    /// Messages that are not done for the store, though it is long after every lease.
    pub stuck: Vec<String>,
    /// Who was inside of a lock with somebody else, though neither had stood still past the lease; fences that did not
    /// rise.
    pub overlaps: Vec<String>,
    /// Whether somebody came into a lock before the process had left it that stood still.
    pub is_overtaken: bool,
    /// The message that the fault happened to, or the key of its lock, where that can be known.
    pub struck: String,
    /// Whether the counts of the processes added up that were stopped in good order.
    pub is_conserved: bool,
    /// What is known of the messages that came out wrong.
    pub history: Vec<String>,
}

impl Observed {
    /// Whether it is as it must be.
    #[must_use]
    pub fn is_right(&self) -> bool {
        let Expected::Doubles { least, most } = self.expected else { return false };
        let doubles = self.verdict.double.len();
        let others = Verdict { double: Vec::new(), ..self.verdict.clone() };
        others.is_clean()
            && self.stuck.is_empty()
            && self.overlaps.is_empty()
            && self.is_conserved
            && (least..=most).contains(&doubles)
            && self.doubles_are_explained()
    }

    /// Of a second effect the fault is the reason: it is that message's. In memory it may be the one before, whose
    /// acknowledgement did not reach the broker.
    fn doubles_are_explained(&self) -> bool {
        self.cell.guard == Guard::Tracked(Records::Memory)
            || self.verdict.double.iter().all(|id| [id, &key_of(id)].contains(&&self.struck))
    }

    /// The ids that came out wrong.
    pub(crate) fn offending(&self) -> impl Iterator<Item = &String> {
        let Verdict { lost, double, innocents, unexpected, .. } = &self.verdict;
        [lost, double, innocents, unexpected, &self.stuck].into_iter().flatten()
    }
}
