//! Explorations, and what they must come to.

use std::sync::Arc;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::moves::{Consumers, Move};
use super::rules::Rules;
use super::wrong::{Sight, Sights};

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

/// Explores until something goes wrong, which must be what is named; prints the shortest way there.
pub(crate) fn catch(rules: Rules, wrong: &str) -> Vec<Move> {
    let model = Consumers { rules: rules.clone(), sights: Arc::default(), sorts: false };
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let discoveries = checker.discoveries();
    let found: Vec<_> = discoveries.keys().copied().collect();
    let Some(path) = discoveries.into_iter().find_map(|(name, path)| (name == wrong).then_some(path))
    else {
        panic!("{:?} is not caught by {wrong:?}; found: {found:?}", rules.defect)
    };
    let moves = path.into_actions();
    println!("{:?}: it does not hold that {wrong}, after {moves:?}", rules.defect);
    moves
}
