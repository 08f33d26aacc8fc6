//! Record and effect in one transaction of a database, which keeps what databases promise: both
//! stay or neither, and a second claim of a key waits for the first one's end.

use mmate_idempotency::protocol::Fate;

use super::rules::Defect;
use super::store::is_over;
use super::turn::Turn;
use super::world::{Phase, Session, Task};
use super::wrong::{Sight, Wrong};

impl Turn<'_> {
    pub(super) fn applied_by_database(&mut self, number: usize) {
        match self.world.instances[number].clone() {
            Phase::Waiting { task } => {
                let at = self.world.now;
                let (_, claim) = self.in_transaction(task.message, at);
                let fate = Fate::of_claim(Some(claim));
                if let Fate::Run(_) = &fate {
                    let session = Session { message: task.message, at, affected: false };
                    self.world.instances[number] =
                        Phase::InTransaction { task, session: Some(session), affected: false };
                }
                self.decide(number, task, &fate);
            }
            Phase::Committing { task, session } => {
                self.commit(session);
                self.world.instances[number] = Phase::Idle;
                self.acknowledge(task);
            }
            other => unreachable!("nothing is on its way: {other:?}"),
        }
    }

    /// The database makes a transaction last.
    pub(super) fn commit(&mut self, session: Session) {
        let (record, _) = self.in_transaction(session.message, session.at);
        let slot = self.slot(session.message);
        if slot.record.as_ref().is_some_and(|before| is_over(before, session.at)) {
            slot.excused = true;
            self.sights.see(Sight::RunAgainAfterWindow);
        }
        let slot = self.slot(session.message);
        if let Some(record) = record {
            let rises = record.fence > slot.highest;
            slot.highest = record.fence.max(slot.highest);
            slot.record = Some(record);
            if !rises {
                self.wrong(Wrong::FenceFell);
            }
        }
        if session.affected {
            self.affected(session.message);
        }
    }

    pub(super) fn effect_in_transaction(&mut self, number: usize) {
        let Phase::InTransaction { task, mut session, .. } = self.world.instances[number] else {
            unreachable!("no handler runs")
        };
        if self.rules.has(Defect::EffectOutsideOfTransaction) {
            self.affected(task.message);
        } else if let Some(session) = &mut session {
            session.affected = true;
        } else {
            // There is no transaction any more: the statement fails, and with it the handler.
            self.world.instances[number] = Phase::Idle;
            self.show_again(task);
            return;
        }
        self.world.instances[number] = Phase::InTransaction { task, session, affected: true };
    }

    pub(super) fn succeed_in_transaction(&mut self, number: usize) {
        let Phase::InTransaction { task, session, .. } = self.world.instances[number] else {
            unreachable!("no handler runs")
        };
        match session {
            Some(session) => self.world.instances[number] = Phase::Committing { task, session },
            None => {
                self.world.instances[number] = Phase::Idle;
                self.unheard(task);
            }
        }
    }

    /// The database ends the transaction: its connection broke, or it was idle for too long.
    pub(super) fn abort(&mut self, number: usize) {
        self.world.left.losses -= 1;
        match self.world.instances[number] {
            Phase::InTransaction { task, affected, .. } => {
                self.world.instances[number] =
                    Phase::InTransaction { task, session: None, affected };
            }
            Phase::Committing { task, .. } => {
                self.sights.see(Sight::UncommittedUnheard);
                self.world.instances[number] = Phase::Idle;
                self.unheard(task);
            }
            _ => unreachable!("no transaction is open"),
        }
    }

    /// It is not known whether the commit took effect: the record decides when the message is
    /// shown again.
    pub(super) fn unheard(&mut self, task: Task) {
        if self.rules.has(Defect::AckOnUnknownCommit) {
            self.acknowledge(task);
        } else if self.rules.has(Defect::DeadLetterOnUnknownCommit) {
            self.wrong(Wrong::InnocentDeadLetter);
        } else {
            self.show_again(task);
        }
    }
}
