//! How long records are kept.

use std::time::Duration;

use tokio::task::JoinSet;

use super::Harness;
use super::harness::WINDOW;
use super::stage::{LEASE, Stage, assert_busy, assert_duplicate, assert_granted};
use crate::protocol::{Claim, Held};

const MILLI: Duration = Duration::from_millis(1);

/// S37
pub async fn the_window_counts_from_done(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let permit = stage.granted("a").await;
    harness.advance(LEASE / 2).await;
    assert_eq!(stage.complete(&permit).await, Held::Yes);
    harness.advance(WINDOW - MILLI).await;
    assert_duplicate(&stage.claim("a").await);
    harness.advance(MILLI).await;
    assert_eq!(stage.granted("a").await.attempt(), 1);
}

/// Purges all that is over; how much that was.
async fn purge(stage: &Stage) -> u64 {
    let mut all = 0;
    loop {
        match stage.store.purge(100).await.expect("the store answers") {
            0 => return all,
            some => all += some,
        }
    }
}

/// What a purge has to find of so many records whose time is over.
fn found(harness: &impl Harness, count: u64) -> u64 {
    if harness.forgets_by_itself() { 0 } else { count }
}

/// S39
pub async fn a_purge_forgets_what_is_over_and_nothing_else(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    purge(&stage).await;
    for id in ["a", "b", "c"] {
        stage.done(id).await;
    }
    harness.advance(WINDOW - MILLI).await;
    stage.done("d").await;
    stage.granted("e").await;
    assert_eq!(purge(&stage).await, 0);
    harness.advance(MILLI).await;
    assert_eq!(purge(&stage).await, found(harness, 3));
    assert_granted(&stage.claim("a").await);
    assert_duplicate(&stage.claim("d").await);
    assert_busy(&stage.claim("e").await);
}

/// S39
pub async fn a_purge_is_bounded(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    purge(&stage).await;
    for number in 0..25 {
        stage.done(&format!("{number}")).await;
    }
    harness.advance(WINDOW).await;
    let mut removed = Vec::new();
    for _ in 0..4 {
        removed.push(stage.store.purge(10).await.expect("the store answers"));
    }
    assert!(removed.iter().all(|count| *count <= 10), "{removed:?}");
    assert_eq!(removed.iter().sum::<u64>(), found(harness, 25), "{removed:?}");
}

/// S40
pub async fn abandoned_and_given_back_records_are_reclaimed(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    purge(&stage).await;
    stage.granted("abandoned").await;
    let permit = stage.granted("given back").await;
    assert_eq!(stage.release(&permit).await, Held::Yes);
    harness.advance(WINDOW).await;
    assert_eq!(purge(&stage).await, found(harness, 1));
    harness.advance(LEASE).await;
    assert_eq!(purge(&stage).await, found(harness, 1));
    assert_eq!(stage.granted("abandoned").await.attempt(), 1);
}

/// S39: claims, takeovers and two purges at the same time.
pub async fn purges_beside_claims_disturb_neither(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let other = stage.again(harness).await;
    for number in 0..200 {
        stage.done(&format!("old-{number}")).await;
    }
    harness.advance(WINDOW).await;
    let mut tasks = JoinSet::new();
    for purging in [stage.clone(), other.clone()] {
        tasks.spawn(async move {
            for _ in 0..40 {
                purging.store.purge(7).await.expect("the store answers");
                tokio::task::yield_now().await;
            }
        });
    }
    for (worker, claiming) in [stage.clone(), other].into_iter().enumerate() {
        tasks.spawn(async move {
            for number in 0..200 {
                // Half of them are being purged, half are new.
                let id = if number % 2 == 0 {
                    format!("old-{}", number + worker)
                } else {
                    format!("new-{number}-{worker}")
                };
                let request = claiming.request(&id);
                let Claim::Granted(grant) = claiming.ask(&request).await else {
                    panic!("{id:?} is free")
                };
                let permit = crate::store::Permit::new(&request, grant);
                assert_eq!(claiming.complete(&permit).await, Held::Yes);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task fails");
    }
    purge(&stage).await;
    assert_duplicate(&stage.claim("old-0").await);
    assert_duplicate(&stage.claim("new-1-0").await);
}
