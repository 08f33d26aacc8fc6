//! Many claimers of one key, round after round.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::Harness;
use super::harness::is_long;
use super::stage::{LEASE, Stage, assert_duplicate};
use crate::protocol::{Claim, Held};
use crate::store::Permit;

const CLAIMERS: usize = 50;
/// So many stores of the same records, with connections of their own.
const STORES: usize = 4;
/// How many keys are raced for.
const ROUNDS: usize = 100;
/// The same with `MMATE_TEST_LONG=1`.
const LONG_ROUNDS: usize = 10_000;
/// In each round of so many, what is raced for is an ended lease.
const TAKEOVER_EVERY: usize = 5;

/// S1, S14: each round has a new key, and one winner. Every fifth key was claimed before, by somebody
/// whose lease is over. In every other round the winner completes while the others still ask, else
/// when all have their answers.
///
/// It prints what it counted.
pub async fn of_fifty_claimers_one_wins_each_round(harness: &impl Harness) {
    let stages = Stage::several_on(harness, STORES).await;
    let rounds = if is_long() { LONG_ROUNDS } else { ROUNDS };
    let (mut winners, mut takeovers) = (0, 0);
    let began = Instant::now();
    for round in 0..rounds {
        let id = format!("{round}");
        let late = if round % TAKEOVER_EVERY == TAKEOVER_EVERY - 1 {
            let late = stages[round % STORES].granted(&id).await;
            harness.advance(LEASE).await;
            Some(late)
        } else {
            None
        };
        let completes_at_once = round % 2 == 0;
        let granted = race(&stages, &id, completes_at_once).await;
        let [winner] = &granted[..] else {
            panic!("round {round} has one winner, not {granted:?}");
        };
        winners += granted.len();
        let stage = &stages[(round + 1) % STORES];
        if let Some(late) = late {
            takeovers += 1;
            assert_eq!(winner.attempt(), 2, "round {round} is a takeover");
            assert!(winner.fence() > late.fence(), "round {round}: {winner:?} after {late:?}");
            assert_eq!(stage.complete(&late).await, Held::Refused, "round {round}");
        } else {
            assert_eq!(winner.attempt(), 1, "round {round} is the first attempt");
        }
        if !completes_at_once {
            assert_eq!(stage.complete(winner).await, Held::Yes, "round {round}");
        }
        assert_duplicate(&stage.claim(&id).await);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "race: {rounds} rounds, {CLAIMERS} claimers, {winners} winners, {takeovers} takeovers, \
         {seconds:.1} s"
    );
}

/// What the claimers were granted, who begin all at once.
async fn race(stages: &[Stage], id: &str, completes_at_once: bool) -> Vec<Permit> {
    let start = Arc::new(Barrier::new(CLAIMERS));
    let mut claimers = JoinSet::new();
    for number in 0..CLAIMERS {
        let (stage, start) = (stages[number % stages.len()].clone(), Arc::clone(&start));
        let id = id.to_owned();
        claimers.spawn(async move {
            let request = stage.request(&id);
            start.wait().await;
            match stage.ask(&request).await {
                Claim::Granted(grant) => {
                    let permit = Permit::new(&request, grant);
                    if completes_at_once {
                        assert_eq!(stage.complete(&permit).await, Held::Yes);
                    }
                    Some(permit)
                }
                Claim::Duplicate(_) if completes_at_once => None,
                Claim::Busy { .. } => None,
                other => panic!("{id} was claimed by nobody else, so it is not {other:?}"),
            }
        });
    }
    claimers.join_all().await.into_iter().flatten().collect()
}
