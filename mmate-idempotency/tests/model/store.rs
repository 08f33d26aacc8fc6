//! The store: records, and the protocol's own function on them. Every change of a record is looked
//! at here.

use std::sync::Arc;

use mmate_idempotency::protocol::{
    Claim, Command, Grant, Held, Holder, Record, Retention, Seen, State, Time, Verdict, Work, step,
};

use super::rules::{Defect, millis, time};
use super::turn::Turn;
use super::world::{Call, Hold, Phase, owner_of};
use super::wrong::{Sight, Wrong};

impl Turn<'_> {
    /// Applies a call.
    pub(super) fn call(&mut self, message: u8, call: Call) -> Verdict {
        match call {
            Call::Claim { owner } => Verdict::Claim(self.claim(message, owner)),
            Call::Beat { hold } => {
                let lease = millis(self.rules.lease);
                self.held(message, hold, |holder| Command::Heartbeat { holder, lease })
            }
            Call::Complete { hold } => {
                self.held(message, hold, |holder| Command::Complete { holder, reply: None })
            }
            Call::Release { hold } => {
                self.held(message, hold, |holder| Command::Release { holder })
            }
        }
    }

    pub(super) fn claim(&mut self, message: u8, owner: u8) -> Claim {
        let owner = Hold { owner, fence: 0 };
        let command = Command::Claim {
            owner: owner.owner(),
            by: Arc::clone(&self.rules.by),
            fingerprint: Some(self.rules.digest(message)),
            lease: millis(self.rules.lease),
            trace: None,
        };
        let before = self.slot(message).record.clone();
        let mut verdict = self.step(message, command.clone(), time(self.world.now));
        let had = before.as_ref().and_then(owner_of);
        match (self.rules.defect, &mut verdict) {
            (Some(Defect::TakeoverBeforeTheEnd), Verdict::Claim(Claim::Busy { remaining })) => {
                let later = time(self.world.now) + *remaining;
                verdict = self.step(message, command, later);
            }
            (Some(Defect::NeverTakenOver), Verdict::Claim(claim @ Claim::Granted(_)))
                if had.is_some_and(|had| had != owner.owner()) =>
            {
                *claim = Claim::Busy { remaining: millis(1) };
                self.slot(message).record.clone_from(&before);
            }
            (Some(Defect::AckWhenBusy), Verdict::Claim(claim @ Claim::Busy { .. })) => {
                let by = Arc::clone(&self.rules.by);
                *claim =
                    Claim::Duplicate(Seen { since: Time::default(), by, reply: None, trace: None });
            }
            (Some(Defect::FenceFromOne), Verdict::Claim(Claim::Granted(grant)))
                if grant.attempt == 1 && had != Some(owner.owner()) =>
            {
                grant.fence = 1;
                if let Some(record) = &mut self.slot(message).record {
                    record.fence = 1;
                }
            }
            _ => {}
        }
        let Verdict::Claim(claim) = verdict else { unreachable!("a claim answers a claim") };
        let asks_again = before.as_ref().filter(|before| {
            owner_of(before) == Some(owner.owner()) && !is_over(before, self.world.now)
        });
        if let Some(Record { fence, .. }) = asks_again
            && !matches!(claim, Claim::Granted(grant) if grant.fence == *fence)
        {
            self.wrong(Wrong::NotRecognised);
        }
        if let Claim::Granted(grant) = claim {
            self.granted(message, owner, grant, before.as_ref());
            if self.rules.has(Defect::MarkBeforeHandler) {
                let holder = Holder { owner: owner.owner(), fence: grant.fence };
                self.step(message, Command::Complete { holder, reply: None }, time(self.world.now));
            }
        }
        claim
    }

    /// Looks at what was granted.
    fn granted(&mut self, message: u8, hold: Hold, grant: Grant, before: Option<&Record>) {
        let (number, now) = (self.rules.slot(message), self.world.now);
        let slot = &mut self.world.slots[number];
        let had = before.and_then(owner_of);
        if had != Some(hold.owner()) {
            let rises = grant.fence > slot.highest;
            slot.highest = grant.fence.max(slot.highest);
            if !rises {
                self.wrong(Wrong::FenceFell);
            }
        }
        let slot = &mut self.world.slots[number];
        if grant.taken_over {
            slot.excused = true;
            self.sights.see(Sight::Takeover);
        }
        if let Some(before) = before.filter(|before| is_over(before, now)) {
            (slot.excused, slot.was_forgotten) = (true, true);
            if is_done(before) {
                self.sights.see(Sight::RunAgainAfterWindow);
            }
        }
        let rules = self.rules;
        let others = self.world.instances.iter().filter_map(|phase| match phase {
            Phase::Working { task, hold: other, ends, .. }
            | Phase::Closing { task, hold: other, ends, .. }
                if rules.slot(task.message) == number && other.owner != hold.owner =>
            {
                Some((*ends, other.owner()))
            }
            _ => None,
        });
        let others: Vec<_> = others.collect();
        let minds = !rules.forgets_all || rules.has(Defect::ForgetInProgress);
        if minds && others.iter().any(|(ends, _)| *ends > now) {
            self.wrong(Wrong::TwoInside);
        } else if rules.timely && others.iter().any(|(_, owner)| Some(*owner) == had) {
            self.wrong(Wrong::TakenFromTheLiving);
        }
    }

    fn held(&mut self, message: u8, hold: Hold, command: impl Fn(Holder) -> Command) -> Verdict {
        let before = self.slot(message).record.clone();
        let mut holder = hold.holder();
        let asked = command(holder);
        let substitutes = match asked {
            Command::Release { .. } => self.rules.has(Defect::UnlockWithoutOwner),
            Command::Complete { .. } => self.rules.has(Defect::UnconditionalComplete),
            _ => false,
        };
        if let Some(whoever) = before.as_ref().and_then(owner_of).filter(|_| substitutes) {
            holder = Holder { owner: whoever, fence: 0 };
        }
        let verdict = self.step(message, command(holder), time(self.world.now));
        let after = &self.slot(message).record;
        let is_holder = before.as_ref().and_then(owner_of) == Some(hold.owner());
        if *after != before && !is_holder {
            self.wrong(Wrong::StaleChange);
        }
        verdict
    }

    pub(super) fn purge(&mut self, message: u8) {
        let before = self.slot(message).record.clone();
        let evicts = self.rules.has(Defect::EvictInProgress);
        let verdict = self.step(message, Command::Purge, time(self.world.now));
        if evicts {
            self.slot(message).record = None;
        }
        if verdict == Verdict::Purged(true) {
            self.sights.see(Sight::Purged);
        }
        let is_gone = self.slot(message).record.is_none();
        if !is_gone {
            return;
        }
        let slot = self.slot(message);
        (slot.excused, slot.was_forgotten) = (true, true);
        let holds = |work: &Work| time(self.world.now) < work.lease_until;
        if matches!(&before, Some(Record { state: State::InProgress(work), .. }) if holds(work)) {
            self.wrong(Wrong::ForgotInProgress);
        }
    }

    /// The store loses a record, as one in memory does when it is full or when its process ends.
    pub(super) fn forget(&mut self, message: u8) {
        let forgets_all = self.rules.forgets_all;
        // The fence of a first claim is the time. One that was granted in this very millisecond
        // is not lost and granted again in the same one.
        let this_moment = time(self.world.now).as_millis() << 10;
        let slot = self.slot(message);
        let may = |record: &mut Record| {
            record.fence < this_moment && (forgets_all || owner_of(record).is_none())
        };
        if slot.record.take_if(may).is_some() {
            (slot.excused, slot.was_forgotten) = (true, true);
            self.world.left.forgets -= 1;
        }
    }

    /// What a transaction writes if it ends well, and the answer to its claim.
    pub(super) fn in_transaction(&self, message: u8, at: u8) -> (Option<Record>, Claim) {
        let retention = self.rules.retention();
        let before = self.world.slots[self.rules.slot(message)].record.clone();
        // Nobody sees what is in progress in a transaction, so any owner will do.
        let owner = Hold { owner: 0, fence: 0 }.owner();
        let claim = Command::Claim {
            owner,
            by: Arc::clone(&self.rules.by),
            fingerprint: Some(self.rules.digest(message)),
            lease: millis(0),
            trace: None,
        };
        let (record, verdict) = step(before, claim, time(at), &retention);
        let Verdict::Claim(claim) = verdict else { unreachable!("a claim answers a claim") };
        let Claim::Granted(Grant { fence, .. }) = claim else { return (record, claim) };
        let complete = Command::Complete { holder: Holder { owner, fence }, reply: None };
        let (record, completed) = step(record, complete, time(at), &retention);
        assert_eq!(completed, Verdict::Held(Held::Yes), "nobody else sees the claim");
        (record, claim)
    }

    fn step(&mut self, message: u8, command: Command, at: Time) -> Verdict {
        let retention: Retention = self.rules.retention();
        let slot = self.slot(message);
        let (record, verdict) = step(slot.record.take(), command, at, &retention);
        slot.record = record;
        verdict
    }
}

pub(super) fn is_done(record: &Record) -> bool {
    matches!(record.state, State::Done(_))
}

pub(super) fn is_over(record: &Record, now: u8) -> bool {
    record.until().is_some_and(|until| until <= time(now))
}
