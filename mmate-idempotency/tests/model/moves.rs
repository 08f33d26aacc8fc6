//! What may happen next.

use std::sync::Arc;

use stateright::{Model, Property};

use super::rules::{Defect, Rules, Strategy};
use super::turn::Turn;
use super::world::{Phase, Stray, Then, World};
use super::wrong::{Sights, properties};

/// Instances of a consumer, a broker and a store.
#[derive(Debug, Clone)]
pub(crate) struct Consumers {
    pub(crate) rules: Rules,
    pub(crate) sights: Arc<Sights>,
    /// Worlds that differ by which instance is which are one. Not for paths that shall be read.
    pub(crate) sorts: bool,
}

/// One thing that happens. The numbers are of instances, messages and strays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// The instance gets a copy of the message, and asks for the claim.
    Fetch(usize, u8),
    /// What the instance asked for is applied, and it learns the answer. That these are one is
    /// no loss: nobody else sees the answer, and nothing makes the instance go on at once.
    Applied(usize),
    /// No answer in time: the instance asks again, and the first call may arrive yet.
    AskAgain(usize),
    /// No answer in time: the instance gives up waiting, and the call may arrive yet.
    GiveUp(usize),
    /// A call that nobody waits for arrives after all.
    StrayArrives(usize),
    /// A transaction that nobody waits for is ended by the database.
    StrayEnds(usize),
    BeatSent(usize),
    BeatApplied(usize),
    /// The heartbeat, or its answer, is late.
    BeatLate(usize),
    /// The instance notices that its lease is over or was refused, and stops the handler.
    Notice(usize),
    Effect(usize),
    /// The handler fails; with `true` it does so for good.
    Fail(usize, bool),
    /// The handler is dropped.
    Drop(usize),
    /// The handler succeeds.
    Succeed(usize),
    /// The database ends the transaction.
    Abort(usize),
    AckArrives(u8),
    AckLost(u8),
    /// The broker takes the delivery back while the instance goes on.
    Cut(usize),
    Crash(usize),
    Tick,
    Purge(u8),
    Forget(u8),
}

impl Model for Consumers {
    type State = World;
    type Action = Move;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.rules)]
    }

    fn actions(&self, world: &World, moves: &mut Vec<Move>) {
        if world.wrong.is_some() {
            return;
        }
        for number in 0..world.instances.len() {
            // Instances that do the same are as good as one.
            if !world.instances[..number].contains(&world.instances[number]) {
                of_instance(&self.rules, world, number, moves);
            }
        }
        of_surroundings(&self.rules, world, moves);
    }

    fn next_state(&self, world: &World, action: Move) -> Option<World> {
        let mut turn = Turn { rules: &self.rules, sights: &self.sights, world: world.clone() };
        turn.take(action);
        let mut next = turn.world;
        next.normalize(self.sorts);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties()
    }
}

fn of_instance(rules: &Rules, world: &World, number: usize, moves: &mut Vec<Move>) {
    let left = world.left;
    let loses = left.losses > 0;
    let mut phase = world.instances[number].clone();
    match &phase {
        Phase::Idle => {
            let queues = world.queues.iter().enumerate();
            let ready = queues.filter(|(_, queue)| queue.ready > 0);
            moves.extend(ready.map(|(message, _)| Move::Fetch(number, message as u8)));
        }
        Phase::Asking { .. } => {
            moves.push(Move::Applied(number));
            if loses {
                moves.extend([Move::AskAgain(number), Move::GiveUp(number)]);
            }
        }
        Phase::Working { ends, beat, is_lost, affected, .. } => {
            let is_over = *ends == 0;
            let may_prolong = world.now + rules.lease > *ends && !rules.has(Defect::NoHeartbeat);
            if beat.is_some() {
                moves.push(Move::BeatApplied(number));
                if loses {
                    moves.push(Move::BeatLate(number));
                }
            } else if !is_over && !is_lost && may_prolong {
                moves.push(Move::BeatSent(number));
            }
            if (is_over || *is_lost) && !rules.has(Defect::NoHeartbeat) {
                moves.push(Move::Notice(number));
            }
            of_handler(world, number, *affected, moves);
        }
        Phase::Closing { then, .. } => {
            moves.push(Move::Applied(number));
            if loses {
                moves.push(Move::GiveUp(number));
                if *then == Then::Complete {
                    moves.push(Move::AskAgain(number));
                }
            }
        }
        Phase::Waiting { task } => {
            if !is_locked(rules, world, task.message) {
                moves.push(Move::Applied(number));
            }
            if loses {
                moves.push(Move::GiveUp(number));
            }
        }
        Phase::InTransaction { session, affected, .. } => {
            if session.is_some() && loses {
                moves.push(Move::Abort(number));
            }
            of_handler(world, number, *affected, moves);
        }
        Phase::Committing { .. } => {
            moves.push(Move::Applied(number));
            if loses {
                moves.extend([Move::GiveUp(number), Move::Abort(number)]);
            }
        }
    }
    if phase != Phase::Idle {
        if left.crashes > 0 {
            moves.push(Move::Crash(number));
        }
        if left.cuts > 0 && phase.task_mut().is_some_and(|task| task.is_ours) {
            moves.push(Move::Cut(number));
        }
    }
}

/// A handler has one effect, and fails before it.
fn of_handler(world: &World, number: usize, affected: bool, moves: &mut Vec<Move>) {
    if affected {
        moves.push(Move::Succeed(number));
        return;
    }
    moves.push(Move::Effect(number));
    if world.left.failures > 0 {
        moves.extend([Move::Fail(number, false), Move::Fail(number, true), Move::Drop(number)]);
    }
}

fn of_surroundings(rules: &Rules, world: &World, moves: &mut Vec<Move>) {
    for (number, stray) in world.strays.iter().enumerate() {
        match stray {
            Stray::Call { .. } => moves.push(Move::StrayArrives(number)),
            Stray::Session { is_committing, .. } => {
                moves.push(Move::StrayEnds(number));
                if *is_committing {
                    moves.push(Move::StrayArrives(number));
                }
            }
        }
    }
    for (message, queue) in (0..).zip(&world.queues) {
        if queue.acking > 0 {
            moves.push(Move::AckArrives(message));
            if world.left.cuts > 0 {
                moves.push(Move::AckLost(message));
            }
        }
        if world.slots[usize::from(message)].record.is_some() && !is_locked(rules, world, message) {
            moves.push(Move::Purge(message));
            if world.left.forgets > 0 {
                moves.push(Move::Forget(message));
            }
        }
    }
    let next = world.now + 1;
    let would_be_late = |phase: &Phase| {
        let minds = !matches!(phase, Phase::Working { .. }) || !rules.has(Defect::NoHeartbeat);
        minds && phase.ends().is_some_and(|ends| ends <= next)
    };
    if next <= rules.horizon && !(rules.timely && world.instances.iter().any(would_be_late)) {
        moves.push(Move::Tick);
    }
}

/// Whether a transaction has the lock on a message's key.
fn is_locked(rules: &Rules, world: &World, message: u8) -> bool {
    if rules.strategy != Strategy::Transactional {
        return false;
    }
    let slot = rules.slot(message);
    let strays = world.strays.iter().filter_map(|stray| match stray {
        Stray::Session { session, .. } => Some(*session),
        Stray::Call { .. } => None,
    });
    let mut sessions = world.instances.iter().filter_map(Phase::session).chain(strays);
    sessions.any(|session| rules.slot(session.message) == slot)
}
