//! Duplicates in batches.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{Batch, BatchPolicy, HandlerError, Subscription};

use crate::databases::By;
use crate::effects::Probe;
use crate::house::{House, counts_when, ended, everywhere, stop};

everywhere! {
    a_batch_with_duplicates_handles_the_others_and_settles_each_on_its_own,
    a_failed_batch_releases_every_claim,
}

/// The ids of the batches that a handler was given.
type Handled = Arc<Mutex<Vec<Vec<String>>>>;

async fn batched(house: &House, handled: &Handled, failures: u32) -> Subscription {
    let (handled, failures) = (Arc::clone(handled), Mutex::new(failures));
    let handler = move |batch: Batch<Probe>| {
        let ids = batch.iter().filter_map(|item| item.meta().id.as_ref());
        let ids: Vec<_> = ids.map(ToString::to_string).collect();
        let mut failures = failures.lock().unwrap();
        let fails = *failures > 0;
        *failures = failures.saturating_sub(1);
        if !fails {
            handled.lock().unwrap().push(ids);
        }
        async move { if fails { Err(HandlerError::retryable("now and then")) } else { Ok(()) } }
    };
    let policy = BatchPolicy::up_to(10).within(Duration::from_millis(300));
    house.guarded(house.builder(), By::default()).await.batch_handler(policy, handler)
}

/// S26: duplicates of what was done before, and two of one id in the batch.
async fn a_batch_with_duplicates_handles_the_others_and_settles_each_on_its_own(house: House) {
    let handled = Handled::default();
    let running = house.start([batched(&house, &handled, 0).await]).await;
    for id in ["a", "b"] {
        house.publish(running.publisher(), id).await;
    }
    counts_when(&[&running], |counts| ended(counts) == 2).await;
    for id in ["a", "c", "d", "c", "b", "e"] {
        house.publish(running.publisher(), id).await;
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 8).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (5, 3));
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0));
    let mut ids = handled.lock().unwrap().concat();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b", "c", "d", "e"]);
    stop([running]).await;
}

/// S9, for each of a batch. `Transactional` handles each alone at once, in the same attempt.
async fn a_failed_batch_releases_every_claim(house: House) {
    let handled = Handled::default();
    let running = house.start([batched(&house, &handled, 1).await]).await;
    for id in ["a", "b", "c"] {
        house.publish(running.publisher(), id).await;
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 3).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (3, 0));
    match house.is_transactional() {
        true => assert_eq!(counts.retried, 0),
        false => assert!(counts.retried >= 1),
    }
    let mut ids = handled.lock().unwrap().concat();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b", "c"]);
    stop([running]).await;
}
