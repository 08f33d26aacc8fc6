//! What became of one message.

use super::event::What;

/// What became of one message.
#[derive(Debug, Default)]
pub(super) struct Fate {
    pub(super) attempted: bool,
    pub(super) confirmed: bool,
    pub(super) poison: bool,
    pub(super) parked: bool,
    pub(super) suppressed: bool,
    pub(super) in_disorder: bool,
    pub(super) began: Vec<Moment>,
    pub(super) effects: Vec<Moment>,
    /// By whom and when it was noted for good.
    pub(super) done: Vec<Moment>,
}

/// Something that a process did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) at: u64,
    /// The number of the process.
    pub(super) by: u32,
}

impl Fate {
    pub(super) fn take(&mut self, what: What, moment: Moment) {
        match what {
            What::Attempted => self.attempted = true,
            What::Confirmed => (self.attempted, self.confirmed) = (true, true),
            What::Poison => self.poison = true,
            What::Began => self.began.push(moment),
            What::Effect => self.effects.push(moment),
            What::Done => self.done.push(moment),
            What::Suppressed => self.suppressed = true,
            What::Parked => self.parked = true,
            What::Fault => {}
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.confirmed && self.effects.is_empty() && !self.parked
    }

    /// Whether each second effect is what a crash may leave: the process of one of the two was harmed
    /// while it was at work on the message, so that it could not note its effect, or went on when the
    /// message was no longer its own. `harmed` tells whether a process was harmed between two times.
    pub(super) fn is_explained(&self, harmed: impl Fn(u32, u64, u64) -> bool) -> bool {
        let mut effects = self.effects.clone();
        effects.sort_by_key(|effect| effect.at);
        effects.windows(2).all(|pair| {
            let [first, second] = [pair[0], pair[1]];
            let noted = self.done.iter().find(|done| done.by == first.by && done.at < second.at);
            let was_first = noted.is_none()
                && harmed(first.by, self.beginning_of(first).unwrap_or(first.at), second.at);
            // It was at work before the other one had its effect.
            let was_second = self.beginning_of(second).is_some_and(|beginning| {
                beginning <= first.at && harmed(second.by, beginning, second.at)
            });
            was_first || was_second
        })
    }

    /// When its process last began, before an effect.
    fn beginning_of(&self, effect: Moment) -> Option<u64> {
        let is_its = |began: &&Moment| began.by == effect.by && began.at <= effect.at;
        self.began.iter().filter(is_its).map(|began| began.at).max()
    }
}
