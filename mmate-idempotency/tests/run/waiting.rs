//! Callers that wait, and callers that leave.

use std::time::Duration;

use mmate_idempotency::{Idempotent, Ran, RunError};

use crate::house::{Failure, Gate, House, LEASE, key, on_every_store};

on_every_store! {
    a_caller_waits_no_longer_than_it_was_told_to,
    a_caller_that_leaves_does_not_stop_its_work,
    work_that_is_a_part_of_its_caller_ends_with_it_and_another_takes_over,
    a_caller_that_leaves_while_it_waits_leaves_nothing_behind,
    the_end_of_a_process_waits_for_the_work_that_is_under_way,
}

/// Starts work that stands at the gate.
async fn begin(at: &Idempotent, gate: &Gate) -> tokio::task::JoinHandle<Ran<usize>> {
    let passes = gate.clone();
    let call = at.run(key("a"), None, async move {
        passes.pass().await;
        Ok::<_, Failure>(1)
    });
    let caller = tokio::spawn(async move { call.await.unwrap() });
    gate.entered().await;
    caller
}

fn value(
    at: &Idempotent,
    value: usize,
) -> impl Future<Output = Result<Ran<usize>, RunError<Failure>>> + use<> {
    at.run(key("a"), None, async move { Ok(value) }).into_future()
}

/// S4
async fn a_caller_waits_no_longer_than_it_was_told_to(house: House) {
    let here = house.instance().await.lease(LEASE);
    let there = house.instance().await.lease(LEASE);
    let gate = Gate::new();
    let first = begin(&here, &gate).await;
    for at in [&here, &there] {
        for limit in [Duration::ZERO, Duration::from_millis(80)] {
            let got = value(&at.clone().wait(limit), 2).await;
            let Err(RunError::Busy { waited, lease_left, .. }) = got else { panic!("{got:?}") };
            assert!(waited >= limit && waited < limit + Duration::from_secs(20), "{waited:?}");
            assert!(lease_left <= LEASE && lease_left > LEASE / 2, "{lease_left:?}");
        }
    }
    let waiting = [tokio::spawn(value(&here, 2)), tokio::spawn(value(&there, 2))];
    gate.open();
    assert_eq!(first.await.unwrap(), Ran::Fresh(1));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap(), Ran::Replayed(1));
    }
}

/// S11 for one that may not be stopped half-way: an HTTP server drops a handler whose client has
/// hung up.
async fn a_caller_that_leaves_does_not_stop_its_work(house: House) {
    let (here, there) = (house.instance().await, house.instance().await);
    let gate = Gate::new();
    let first = begin(&here, &gate).await;
    let waiting = [tokio::spawn(value(&here, 2)), tokio::spawn(value(&there, 2))];
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.open();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap(), Ran::Replayed(1));
    }
    assert_eq!(value(&here, 2).await.unwrap(), Ran::Replayed(1));
}

/// S11
async fn work_that_is_a_part_of_its_caller_ends_with_it_and_another_takes_over(house: House) {
    let (here, there) = (house.instance().await, house.instance().await);
    let gate = Gate::new();
    let first = tokio::spawn({
        let (here, gate) = (here.clone(), gate.clone());
        async move {
            // It borrows.
            let work = async {
                gate.pass().await;
                Ok::<_, Failure>(1)
            };
            here.run(key("a"), None, work).here().await
        }
    });
    gate.entered().await;
    let waiting = [tokio::spawn(value(&here, 2)), tokio::spawn(value(&there, 2))];
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let mut fresh = 0;
    for waiting in waiting {
        let got = waiting.await.unwrap().unwrap();
        fresh += usize::from(got == Ran::Fresh(2));
        assert_eq!(got.into_value(), 2);
    }
    assert_eq!(fresh, 1);
}

async fn a_caller_that_leaves_while_it_waits_leaves_nothing_behind(house: House) {
    let (here, there) = (house.instance().await, house.instance().await);
    let gate = Gate::new();
    let first = begin(&here, &gate).await;
    for at in [&here, &there] {
        let gone = tokio::time::timeout(Duration::from_millis(50), value(at, 2)).await;
        assert!(gone.is_err());
    }
    gate.open();
    assert_eq!(first.await.unwrap(), Ran::Fresh(1));
    assert_eq!(value(&there, 2).await.unwrap(), Ran::Replayed(1));
}

/// S49
async fn the_end_of_a_process_waits_for_the_work_that_is_under_way(house: House) {
    let here = house.instance().await;
    let gate = Gate::new();
    let first = begin(&here, &gate).await;
    first.abort();
    let _ = first.await;
    let finishing = tokio::spawn({
        let here = here.clone();
        async move { here.finish(Duration::from_secs(60)).await }
    });
    tokio::task::yield_now().await;
    assert!(!finishing.is_finished());
    gate.open();
    finishing.await.unwrap();
    let there = house.instance().await.wait(Duration::ZERO);
    assert_eq!(value(&there, 2).await.unwrap(), Ran::Replayed(1));
}
