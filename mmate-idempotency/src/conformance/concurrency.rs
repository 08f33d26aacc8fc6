//! Many at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::Harness;
use super::stage::{LEASE, Stage, assert_busy, assert_duplicate};
use crate::protocol::{Claim, Held};

/// Claims one id from so many tasks at once, through several stores; how many were granted.
async fn granted_of(stages: &[Stage], id: &str, tasks: usize) -> usize {
    let barrier = Arc::new(Barrier::new(tasks));
    let mut all = JoinSet::new();
    for number in 0..tasks {
        let (stage, barrier) = (stages[number % stages.len()].clone(), Arc::clone(&barrier));
        let id = id.to_owned();
        all.spawn(async move {
            barrier.wait().await;
            matches!(stage.claim(&id).await, Claim::Granted(_))
        });
    }
    all.join_all().await.into_iter().filter(|granted| *granted).count()
}

/// S1, S7
pub async fn of_many_at_once_one_is_granted(harness: &impl Harness) {
    let stages = Stage::several_on(harness, 4).await;
    for tasks in [2, 20, 50] {
        for round in 0..20 {
            let granted = granted_of(&stages, &format!("{tasks}-{round}"), tasks).await;
            assert_eq!(granted, 1, "{tasks} tasks, round {round}");
        }
    }
}

/// S1: eight workers claim, have the effect, and complete or give back by chance. Each id comes to
/// two of them, three times.
pub async fn five_hundred_ids_six_times_each_have_one_effect(harness: &impl Harness) {
    let stages = Stage::several_on(harness, 4).await;
    let effects: Arc<Mutex<HashMap<usize, usize>>> = Arc::default();
    let mut workers = JoinSet::new();
    for worker in 0..8_u64 {
        let stage = stages[worker as usize % stages.len()].clone();
        let effects = Arc::clone(&effects);
        workers.spawn(async move {
            let mut random = fastrand::Rng::with_seed(worker);
            let mut left: Vec<usize> = (0..3).flat_map(|_| 0..125).collect();
            random.shuffle(&mut left);
            while let Some(id) = left.pop() {
                // Each worker shares its ids with one other.
                let id = id + 125 * (worker as usize / 2);
                let name = format!("{id}");
                let request = stage.request(&name);
                match stage.ask(&request).await {
                    Claim::Granted(grant) => {
                        let permit = crate::store::Permit::new(&request, grant);
                        if random.u8(..) < 64 {
                            assert_eq!(stage.release(&permit).await, Held::Yes);
                            left.push(id % 125);
                            random.shuffle(&mut left);
                            continue;
                        }
                        count(&effects, id);
                        assert_eq!(stage.complete(&permit).await, Held::Yes);
                    }
                    Claim::Busy { .. } => {
                        left.insert(0, id % 125);
                        tokio::task::yield_now().await;
                    }
                    Claim::Duplicate(_) => {}
                    Claim::Conflict => panic!("all have the same content"),
                }
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("no worker fails");
    }
    let effects = effects.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(effects.len(), 500);
    assert!(effects.values().all(|count| *count == 1), "{effects:?}");
}

fn count(effects: &Mutex<HashMap<usize, usize>>, id: usize) {
    *effects.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default() += 1;
}

/// S9
pub async fn when_the_holder_gives_up_exactly_one_of_the_waiters_has_it(harness: &impl Harness) {
    let stages = Stage::several_on(harness, 2).await;
    for round in 0..20 {
        let id = format!("{round}");
        let permit = stages[0].granted(&id).await;
        assert_eq!(granted_of(&stages, &id, 8).await, 0);
        assert_eq!(stages[1].release(&permit).await, Held::Yes);
        assert_eq!(granted_of(&stages, &id, 8).await, 1, "round {round}");
        assert_busy(&stages[0].claim(&id).await);
    }
}

/// S14
pub async fn one_ended_lease_is_taken_over_once(harness: &impl Harness) {
    let stages = Stage::several_on(harness, 2).await;
    for round in 0..20 {
        let id = format!("{round}");
        stages[0].granted(&id).await;
        harness.advance(LEASE).await;
        assert_eq!(granted_of(&stages, &id, 20).await, 1, "round {round}");
    }
    let permit = stages[0].done("done").await;
    drop(permit);
    harness.advance(LEASE).await;
    assert_eq!(granted_of(&stages, "done", 20).await, 0);
    assert_duplicate(&stages[0].claim("done").await);
}
