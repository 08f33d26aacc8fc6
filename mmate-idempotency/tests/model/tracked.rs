//! Claim, handle, complete; and a lease alone.

use mmate_idempotency::protocol::{Claim, Fate, Grant, Held, Verdict, is_acknowledged};

use super::rules::{Defect, Strategy};
use super::turn::Turn;
use super::world::{Call, Hold, Phase, Stray, Task, Then, owner_of};
use super::wrong::{Sight, Wrong};

impl Turn<'_> {
    /// What the instance asked for is applied and answered.
    pub(super) fn applied(&mut self, number: usize) {
        match self.world.instances[number].clone() {
            Phase::Asking { task, owner, ends, has_checked } => {
                let claim = if self.rules.has(Defect::CheckThenMark) {
                    match self.check_then_mark(number, task, owner, has_checked) {
                        Some(claim) => claim,
                        None => return,
                    }
                } else {
                    self.claim(task.message, owner)
                };
                self.claimed(number, task, owner, ends, claim);
            }
            Phase::Closing { task, then, .. } => {
                let (message, call) =
                    self.world.instances[number].call().expect("it has something on its way");
                let Verdict::Held(held) = self.call(message, call) else {
                    unreachable!("that is answered by whether it held")
                };
                self.world.instances[number] = Phase::Idle;
                if held == Held::Refused {
                    self.sights.see(Sight::ZombieRefused);
                }
                match then {
                    Then::Complete if !is_acknowledged(Some(held)) => self.show_again(task),
                    _ => self.after(task, then),
                }
            }
            Phase::Waiting { .. } | Phase::Committing { .. } => self.applied_by_database(number),
            other => unreachable!("nothing is on its way: {other:?}"),
        }
    }

    /// Looks first, and then writes whatever is there by then. `None` if it has looked only.
    fn check_then_mark(
        &mut self,
        number: usize,
        task: Task,
        owner: u8,
        has_checked: bool,
    ) -> Option<Claim> {
        let before = self.slot(task.message).record.clone();
        if has_checked {
            self.slot(task.message).record = None;
            return Some(self.claim(task.message, owner));
        }
        let is_free = before.is_none();
        if is_free {
            if let Phase::Asking { has_checked, .. } = &mut self.world.instances[number] {
                *has_checked = true;
            }
            return None;
        }
        Some(self.claim(task.message, owner))
    }

    fn claimed(&mut self, number: usize, task: Task, owner: u8, ends: u8, claim: Claim) {
        let fate = Fate::of_claim(Some(claim));
        if let Fate::Run(grant) = &fate {
            self.world.instances[number] = Phase::Working {
                task,
                hold: Hold { owner, fence: grant.fence },
                ends,
                beat: None,
                is_lost: false,
                affected: false,
            };
        }
        self.decide(number, task, &fate);
    }

    pub(super) fn ask_again(&mut self, number: usize) {
        self.world.left.losses -= 1;
        let (message, call) =
            self.world.instances[number].call().expect("it has something on its way");
        self.world.strays.push(Stray::Call { message, call });
        if let Phase::Asking { ends, .. } = &mut self.world.instances[number] {
            *ends = self.world.now + self.rules.lease;
        }
    }

    pub(super) fn give_up(&mut self, number: usize) {
        self.world.left.losses -= 1;
        let phase = std::mem::replace(&mut self.world.instances[number], Phase::Idle);
        self.leave(&phase);
        match phase {
            Phase::Asking { task, owner, ends, .. }
                if self.rules.has(Defect::RunWhenUnanswered) =>
            {
                let grant = Grant { fence: u64::MAX, attempt: 1, taken_over: false };
                self.claimed(number, task, owner, ends, Claim::Granted(grant));
            }
            Phase::Asking { task, owner, .. } => {
                // It may have been granted, so it is given back. The fence is not known.
                let call = Call::Release { hold: Hold { owner, fence: 0 } };
                self.world.strays.push(Stray::Call { message: task.message, call });
                self.decide(number, task, &Fate::of_claim(None));
            }
            Phase::Closing { task, then: Then::Complete, .. } => {
                if is_acknowledged(None) || self.rules.has(Defect::AckOnUnknownCompletion) {
                    self.acknowledge(task);
                } else {
                    self.show_again(task);
                }
            }
            // The end of the lease will do what the release was to do.
            Phase::Closing { task, then, .. } => self.after(task, then),
            Phase::Waiting { task } => self.decide(number, task, &Fate::of_claim(None)),
            Phase::Committing { task, .. } => self.unheard(task),
            other => unreachable!("nothing is on its way: {other:?}"),
        }
    }

    pub(super) fn stray_arrives(&mut self, number: usize) {
        match self.world.strays.remove(number) {
            Stray::Call { message, call } => {
                let verdict = self.call(message, call);
                if matches!(verdict, Verdict::Claim(Claim::Granted(_))) {
                    self.sights.see(Sight::GrantedToNobody);
                }
            }
            Stray::Session { session, .. } => {
                self.sights.see(Sight::CommittedUnheard);
                self.commit(session);
            }
        }
    }

    pub(super) fn beat_sent(&mut self, number: usize) {
        let would_end = self.world.now + self.rules.lease;
        if let Phase::Working { beat, .. } = &mut self.world.instances[number] {
            *beat = Some(would_end);
        }
    }

    pub(super) fn beat_applied(&mut self, number: usize) {
        let Phase::Working { task, hold, beat: Some(would_end), .. } = self.world.instances[number]
        else {
            unreachable!("no heartbeat is on its way")
        };
        let verdict = self.call(task.message, Call::Beat { hold });
        if let Phase::Working { ends, beat, is_lost, .. } = &mut self.world.instances[number] {
            *beat = None;
            if verdict == Verdict::Held(Held::Yes) {
                *ends = would_end;
            } else {
                *is_lost = true;
                self.sights.see(Sight::ZombieRefused);
            }
        }
    }

    pub(super) fn beat_late(&mut self, number: usize) {
        self.world.left.losses -= 1;
        if let Phase::Working { task, hold, beat, .. } = &mut self.world.instances[number] {
            *beat = None;
            let call = Call::Beat { hold: *hold };
            self.world.strays.push(Stray::Call { message: task.message, call });
        }
    }

    /// The handler is cancelled; the claim is somebody else's, or will be.
    pub(super) fn notice(&mut self, number: usize) {
        self.sights.see(Sight::LeaseLost);
        if let Phase::Working { task, .. } = self.world.instances[number] {
            self.world.instances[number] = Phase::Idle;
            self.show_again(task);
        }
    }

    pub(super) fn effect(&mut self, number: usize) {
        let phase = self.world.instances[number].clone();
        let Phase::Working { task, hold, ends, .. } = phase else {
            return self.effect_in_transaction(number);
        };
        let book = &mut self.world.books[usize::from(task.message)];
        let is_in_order = book.fence < hold.fence;
        if self.rules.fenced && !is_in_order {
            self.refuse(number, task, hold, ends);
            return;
        }
        book.fence = book.fence.max(hold.fence);
        if let Phase::Working { affected, .. } = &mut self.world.instances[number] {
            *affected = true;
        }
        if !is_in_order {
            self.wrong(Wrong::EffectOutOfOrder);
        }
        self.affected(task.message);
    }

    /// The row has a higher fence: the handler fails.
    fn refuse(&mut self, number: usize, task: Task, hold: Hold, ends: u8) {
        self.sights.see(Sight::EffectRefused);
        let record = &self.slot(task.message).record;
        let holds = record.as_ref().is_some_and(|record| {
            owner_of(record) == Some(hold.owner()) && record.fence == hold.fence
        });
        if holds {
            self.wrong(Wrong::HolderRefused);
        }
        self.world.instances[number] = Phase::Closing { task, hold, ends, then: Then::Retry };
    }

    /// The handler's future is dropped: the claim is given back by a task of its own.
    pub(super) fn drop_handler(&mut self, number: usize) {
        self.world.left.failures -= 1;
        let phase = std::mem::replace(&mut self.world.instances[number], Phase::Idle);
        match phase {
            Phase::Working { task, hold, .. } => {
                let call = Call::Release { hold };
                self.world.strays.push(Stray::Call { message: task.message, call });
                self.show_again(task);
            }
            Phase::InTransaction { task, .. } => {
                self.leave(&phase);
                self.show_again(task);
            }
            other => unreachable!("no handler runs: {other:?}"),
        }
    }

    pub(super) fn succeed(&mut self, number: usize) {
        match self.world.instances[number] {
            Phase::Working { task, hold, ends, .. } => {
                let then = match self.rules.strategy {
                    Strategy::Locked => Then::Acknowledge,
                    Strategy::Tracked | Strategy::Transactional => Then::Complete,
                };
                self.world.instances[number] = Phase::Closing { task, hold, ends, then };
            }
            _ => self.succeed_in_transaction(number),
        }
    }
}
