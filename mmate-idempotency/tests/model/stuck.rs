//! Nothing is ever stuck: from every world there is a way to one where all copies are settled and
//! nobody is at work, without any further fault.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use mmate_idempotency::protocol::State;
use stateright::Model;

use super::World;
use super::moves::Consumers;
use super::rules::{A, Defect, Faults, Message, Rules, Strategy, time};

/// All worlds within the bounds, by number, and the ways between them.
#[derive(Default)]
struct Map {
    numbers: HashMap<u64, usize>,
    /// From where a world is come to, by other moves than faults.
    origins: Vec<Vec<usize>>,
    is_quiet: Vec<bool>,
    /// Whether a lease lasts longer than the time that is explored.
    is_cut_off: Vec<bool>,
}

impl Map {
    /// Its number, and whether it is new.
    fn number(&mut self, world: &World, horizon: u8) -> (usize, bool) {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        let next = self.origins.len();
        let number = *self.numbers.entry(hasher.finish()).or_insert(next);
        if number < next {
            return (number, false);
        }
        let outlasts = |record: &mmate_idempotency::protocol::Record| match &record.state {
            State::InProgress(work) => work.lease_until > time(horizon),
            _ => false,
        };
        self.origins.push(Vec::new());
        self.is_quiet.push(world.is_quiet());
        let mut records = world.slots.iter().filter_map(|slot| slot.record.as_ref());
        self.is_cut_off.push(records.any(outlasts));
        (number, true)
    }
}

/// How many worlds have no way out.
fn stuck(name: &str, rules: Rules) -> usize {
    let model = Consumers { rules, sights: Arc::default(), sorts: true };
    let horizon = model.rules.horizon;
    let mut map = Map::default();
    let mut left = model.init_states();
    for world in &left {
        map.number(world, horizon);
    }
    while let Some(world) = left.pop() {
        let (from, _) = map.number(&world, horizon);
        for next in model.next_states(&world) {
            let (to, is_new) = map.number(&next, horizon);
            if next.left == world.left {
                map.origins[to].push(from);
            }
            if is_new {
                left.push(next);
            }
        }
    }
    let mut ends_well = map.is_quiet.clone();
    let mut found: Vec<usize> = (0..ends_well.len()).filter(|number| ends_well[*number]).collect();
    while let Some(number) = found.pop() {
        for origin in &map.origins[number] {
            if !std::mem::replace(&mut ends_well[*origin], true) {
                found.push(*origin);
            }
        }
    }
    let (worlds, count) = (ends_well.len(), |all: &[bool]| all.iter().filter(|is| **is).count());
    let stuck =
        (0..worlds).filter(|number| !ends_well[*number] && !map.is_cut_off[*number]).count();
    println!("| never stuck: {name} | {worlds} | of them cut off: {} |", count(&map.is_cut_off));
    stuck
}

fn tracked() -> Rules {
    let messages = vec![Message { copies: 1, ..A }];
    Rules { lease: 1, messages, horizon: 4, ..Rules::of(Strategy::Tracked) }
}

const CRASH: Faults = Faults { crashes: 1, losses: 0, cuts: 0, failures: 0, forgets: 0 };

/// S11, S12: no claim outlives its lease.
#[test]
fn tracked_is_never_stuck() {
    assert_eq!(stuck("tracked, a crash", Rules { faults: CRASH, ..tracked() }), 0);
    let faults = Faults { losses: 1, failures: 1, crashes: 0, ..CRASH };
    let rules = Rules { horizon: 2, faults, ..tracked() };
    assert_eq!(stuck("tracked, a loss, a failure", rules), 0);
}

/// F44
#[test]
fn transactional_is_never_stuck() {
    let faults = Faults { losses: 2, cuts: 1, failures: 1, ..CRASH };
    let rules = Rules { horizon: 0, faults, ..Rules::of(Strategy::Transactional) };
    assert_eq!(stuck("transactional", rules), 0);
}

#[test]
fn locked_is_never_stuck() {
    let rules = Rules { strategy: Strategy::Locked, faults: CRASH, ..tracked() };
    assert_eq!(stuck("locked, a crash", rules), 0);
}

/// The defect that this is to find: a claim without an end.
#[test]
fn without_a_takeover_a_crash_leaves_a_message_stuck() {
    let rules = tracked().broken(Defect::NeverTakenOver);
    assert!(stuck("no takeover, a crash", Rules { faults: CRASH, ..rules }) > 0);
}
