//! One thing happens: at the broker, to an instance, with time.

use mmate_idempotency::protocol::Fate;

use super::moves::Move;
use super::rules::{Rules, Strategy};
use super::store::is_done;
use super::world::{Phase, Slot, Stray, Task, Then, World};
use super::wrong::{Sight, Sights, Wrong};

/// A world on its way to the next.
pub(super) struct Turn<'a> {
    pub(super) rules: &'a Rules,
    pub(super) sights: &'a Sights,
    pub(super) world: World,
}

impl Turn<'_> {
    pub(super) fn take(&mut self, action: Move) {
        match action {
            Move::Fetch(number, message) => self.fetch(number, message),
            Move::Applied(number) => self.applied(number),
            Move::AskAgain(number) => self.ask_again(number),
            Move::GiveUp(number) => self.give_up(number),
            Move::StrayArrives(number) => self.stray_arrives(number),
            Move::StrayEnds(number) => drop(self.world.strays.remove(number)),
            Move::BeatSent(number) => self.beat_sent(number),
            Move::BeatApplied(number) => self.beat_applied(number),
            Move::BeatLate(number) => self.beat_late(number),
            Move::Notice(number) => self.notice(number),
            Move::Effect(number) => self.effect(number),
            Move::Fail(number, for_good) => self.fail(number, for_good),
            Move::Drop(number) => self.drop_handler(number),
            Move::Succeed(number) => self.succeed(number),
            Move::Abort(number) => self.abort(number),
            Move::AckArrives(message) => {
                let queue = &mut self.world.queues[usize::from(message)];
                (queue.acking, queue.acked) = (queue.acking - 1, queue.acked + 1);
            }
            Move::AckLost(message) => {
                let queue = &mut self.world.queues[usize::from(message)];
                (queue.acking, queue.ready) = (queue.acking - 1, queue.ready + 1);
                self.world.left.cuts -= 1;
            }
            Move::Cut(number) => {
                self.world.left.cuts -= 1;
                if let Some(task) = self.world.instances[number].task_mut() {
                    task.is_ours = false;
                    self.world.queues[usize::from(task.message)].ready += 1;
                }
            }
            Move::Crash(number) => self.crash(number),
            Move::Tick => self.world.now += 1,
            Move::Purge(message) => self.purge(message),
            Move::Forget(message) => self.forget(message),
        }
        if self.world.is_quiet() {
            self.sights.see(Sight::Quiet);
        }
    }

    pub(super) fn wrong(&mut self, wrong: Wrong) {
        self.world.wrong.get_or_insert(wrong);
    }

    pub(super) fn slot(&mut self, message: u8) -> &mut Slot {
        &mut self.world.slots[self.rules.slot(message)]
    }

    fn fetch(&mut self, number: usize, message: u8) {
        self.world.queues[usize::from(message)].ready -= 1;
        let task = Task { message, is_ours: true };
        self.world.instances[number] = match self.rules.strategy {
            Strategy::Transactional => Phase::Waiting { task },
            Strategy::Tracked | Strategy::Locked => {
                let owner = self.world.fresh_owner();
                let ends = self.world.now + self.rules.lease;
                Phase::Asking { task, owner, ends, has_checked: false }
            }
        };
    }

    fn crash(&mut self, number: usize) {
        self.world.left.crashes -= 1;
        let mut phase = std::mem::replace(&mut self.world.instances[number], Phase::Idle);
        self.leave(&phase);
        if let Some(task) = phase.task_mut() {
            self.show_again(*task);
        }
    }

    /// What a phase leaves on its way to the store.
    pub(super) fn leave(&mut self, phase: &Phase) {
        if let Some((message, call)) = phase.call() {
            self.world.strays.push(Stray::Call { message, call });
        }
        if let Some(session) = phase.session() {
            let is_committing = matches!(phase, Phase::Committing { .. });
            self.world.strays.push(Stray::Session { session, is_committing });
        }
    }

    /// What the answer to a claim means for the delivery, unless it is to run.
    pub(super) fn decide(&mut self, number: usize, task: Task, fate: &Fate) {
        match fate {
            Fate::Run(_) => return,
            Fate::Skip(_) => {
                self.sights.see(Sight::DuplicateSuppressed);
                self.acknowledge(task);
            }
            Fate::Busy(_) => {
                self.sights.see(Sight::Deferred);
                self.show_again(task);
            }
            Fate::Unanswered => self.show_again(task),
            Fate::Conflict => {
                self.sights.see(Sight::Conflict);
                if !self.rules.is_in_conflict(task.message) {
                    self.wrong(Wrong::InnocentDeadLetter);
                }
                self.put_by(task);
            }
        }
        self.world.instances[number] = Phase::Idle;
    }

    /// Writes an acknowledgement: the moment from when on nobody has the message but who did it.
    pub(super) fn acknowledge(&mut self, task: Task) {
        if self.world.books[usize::from(task.message)].effects == 0 {
            self.wrong(Wrong::AckedWithoutEffect);
        }
        let Slot { record, excused, .. } = self.slot(task.message);
        let is_done = record.as_ref().is_some_and(is_done);
        if !is_done && !*excused && !self.rules.is_locked() {
            self.wrong(Wrong::AckedUndone);
        }
        if task.is_ours {
            self.world.queues[usize::from(task.message)].acking += 1;
        }
    }

    /// The copy is there again, at once or after a delay.
    pub(super) fn show_again(&mut self, task: Task) {
        if task.is_ours {
            self.world.queues[usize::from(task.message)].ready += 1;
        }
    }

    /// Puts the copy among the dead letters.
    pub(super) fn put_by(&mut self, task: Task) {
        if task.is_ours {
            self.world.queues[usize::from(task.message)].dead += 1;
        }
    }

    /// A message has had an effect that stays.
    pub(super) fn affected(&mut self, message: u8) {
        let book = &mut self.world.books[usize::from(message)];
        book.effects += 1;
        if book.effects < 2 {
            return;
        }
        self.sights.see(Sight::SecondEffect);
        // A lock is no deduplication.
        let excused = self.slot(message).excused && !self.rules.is_exact();
        if !excused && !self.rules.is_locked() {
            self.wrong(Wrong::SecondEffect);
        }
    }

    /// The handler fails before it has had an effect.
    fn fail(&mut self, number: usize, for_good: bool) {
        self.world.left.failures -= 1;
        let then = if for_good { Then::DeadLetter } else { Then::Retry };
        match self.world.instances[number] {
            Phase::Working { task, hold, ends, .. } => {
                self.world.instances[number] = Phase::Closing { task, hold, ends, then };
            }
            Phase::InTransaction { task, .. } => {
                // It is rolled back before anything else.
                self.world.instances[number] = Phase::Idle;
                self.after(task, then);
            }
            _ => unreachable!("no handler runs"),
        }
    }

    /// What becomes of a delivery whose handler has ended.
    pub(super) fn after(&mut self, task: Task, then: Then) {
        match then {
            Then::Complete | Then::Acknowledge => self.acknowledge(task),
            Then::Retry => self.show_again(task),
            Then::DeadLetter => self.put_by(task),
        }
    }
}
