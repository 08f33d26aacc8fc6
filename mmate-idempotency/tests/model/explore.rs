//! Explorations, and what they must come to.

use std::sync::Arc;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::World;
use super::moves::{Consumers, Move};
use super::rules::Rules;
use super::wrong::{Sight, Sights, Wrong};

/// Explores all worlds within the bounds, and sees that nothing goes wrong and that what is named
/// was come across.
pub(crate) fn explore(name: &str, rules: Rules, expected: &[Sight]) {
    let sights = Arc::new(Sights::default());
    let model = Consumers { rules, sights: Arc::clone(&sights), sorts: true };
    let began = Instant::now();
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (worlds, moves) = (checker.unique_state_count(), checker.state_count());
    let (depth, took) = (checker.max_depth(), began.elapsed().as_secs_f64());
    println!("| {name} | {worlds} | {moves} | {depth} | {took:.1} s |");
    if let Some((wrong, path)) = checker.discoveries().into_iter().next() {
        panic!("{name}: it does not hold that {wrong}, after {:?}", path.into_actions());
    }
    assert!(checker.is_done(), "all is explored");
    for sight in expected {
        assert!(sights.has(*sight), "{name}: {sight:?} is not come across");
    }
}

/// Explores until something goes wrong, which must be what is named; prints a short way there.
pub(crate) fn catch(rules: Rules, wrong: &str) {
    let defect = rules.defect;
    let model = Consumers { rules, sights: Arc::default(), sorts: false };
    let explored = model.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs();
    let discoveries = explored.join().discoveries();
    let found: Vec<_> = discoveries.keys().copied().collect();
    let path = discoveries.into_iter().find_map(|(name, path)| (name == wrong).then_some(path));
    let Some(path) = path else {
        panic!("{defect:?} is not caught by {wrong:?}, but by {found:?}")
    };
    let moves = shortened(&model, path.into_actions());
    println!("{defect:?}: it does not hold that {wrong}, after {moves:?}");
}

/// Leaves out what is not needed to come to the same wrong.
fn shortened(model: &Consumers, mut moves: Vec<Move>) -> Vec<Move> {
    let wrong = replay(model, &moves);
    let mut at = 0;
    while at < moves.len() {
        let mut fewer = moves.clone();
        fewer.remove(at);
        if replay(model, &fewer) == wrong {
            (moves, at) = (fewer, 0);
        } else {
            at += 1;
        }
    }
    moves
}

/// What goes wrong by these moves; nothing if one of them cannot be made.
fn replay(model: &Consumers, moves: &[Move]) -> Option<Wrong> {
    let mut world = World::new(&model.rules);
    for made in moves {
        let mut possible = Vec::new();
        model.actions(&world, &mut possible);
        if !possible.contains(made) {
            return None;
        }
        world = model.next_state(&world, *made).unwrap_or(world);
    }
    world.wrong
}

/// Larger bounds, if asked for.
pub(crate) fn bound(usual: u8, long: u8) -> u8 {
    let is_long = std::env::var_os("MMATE_TEST_LONG").is_some_and(|value| value == "1");
    if is_long { long } else { usual }
}
