//! Processes that die.

use std::time::Duration;

use mmate_idempotency::{Idempotent, Ran, RunError};

use crate::house::{Failure, Gate, House, LEASE, key, on_every_store};

on_every_store! {
    work_whose_process_died_is_taken_over_after_its_lease_and_not_before,
    a_process_that_died_after_the_record_leaves_the_value,
}

fn value(
    at: &Idempotent,
    value: usize,
) -> impl Future<Output = Result<Ran<usize>, RunError<Failure>>> + use<> {
    at.run(key("a"), None, async move { Ok(value) }).into_future()
}

/// A process of its own, as far as tokio is concerned: nothing of it runs on once it is dropped.
async fn in_a_runtime_that_dies<F: Future<Output = ()> + Send + 'static>(until: F) {
    let dying =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    dying.spawn(until).await.unwrap();
    dying.shutdown_background();
}

/// S12, S14
async fn work_whose_process_died_is_taken_over_after_its_lease_and_not_before(mut house: House) {
    let clock = house.clock();
    let dies = house.instance().await.lease(LEASE);
    let gate = Gate::new();
    let entered = gate.clone();
    in_a_runtime_that_dies(async move {
        let passes = entered.clone();
        let work = async move {
            passes.pass().await;
            Ok::<_, Failure>(1)
        };
        tokio::spawn(dies.run(key("a"), None, work).into_future());
        entered.entered().await;
    })
    .await;
    let lives = house.instance().await.lease(LEASE);
    let busy = value(&lives.clone().wait(Duration::ZERO), 2).await;
    assert!(matches!(busy, Err(RunError::Busy { .. })), "{busy:?}");
    clock.advance(LEASE);
    assert_eq!(value(&lives, 2).await.unwrap(), Ran::Fresh(2));
}

/// S12
async fn a_process_that_died_after_the_record_leaves_the_value(house: House) {
    let dies = house.instance().await;
    in_a_runtime_that_dies(async move {
        assert_eq!(value(&dies, 1).await.unwrap(), Ran::Fresh(1));
    })
    .await;
    assert_eq!(value(&house.instance().await, 2).await.unwrap(), Ran::Replayed(1));
}
