//! Stores that are away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mmate_idempotency::store::RecordKey;
use mmate_idempotency::{Idempotent, Ran, RunError};
use tokio::task::JoinSet;

use crate::faulty::{Call, Fault, Faulty, When, down};
use crate::house::{Failure, House, key, on_every_store};

on_every_store! {
    while_the_store_is_away_nothing_runs_and_all_are_told_soon,
    a_claim_whose_answer_is_lost_is_asked_again,
    a_value_is_recorded_once_the_store_is_back,
    a_value_that_cannot_be_recorded_comes_with_the_error,
    a_ping_tells_how_the_store_is_and_leaves_nothing,
}

const PATIENCE: Duration = Duration::from_millis(200);

/// An instance whose store fails at this call for as long as it is told to.
async fn failing_at(house: &House, at: Call, when: When) -> (Idempotent, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&fails);
    let fault: Fault = Arc::new(move |call, now| {
        let fails = (call, now) == (at, when) && told.load(Ordering::SeqCst);
        Box::pin(async move { if fails { Err(down()) } else { Ok(()) } })
    });
    let store = Faulty { store: house.store().await, fault };
    (Idempotent::new(store).outage_patience(PATIENCE), fails)
}

fn value(
    at: &Idempotent,
    house: &House,
) -> impl Future<Output = Result<Ran<usize>, RunError<Failure>>> + use<> {
    let runs = house.runs.clone();
    at.run(key("a"), None, async move { Ok(runs.next()) }).into_future()
}

/// S42
async fn while_the_store_is_away_nothing_runs_and_all_are_told_soon(house: House) {
    let (instance, fails) = failing_at(&house, Call::Claim, When::Before).await;
    let began = std::time::Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        calls.spawn(value(&instance, &house));
    }
    for got in calls.join_all().await {
        let Err(RunError::Store { source, .. }) = got else { panic!("{got:?}") };
        assert!(source.to_string().contains("it is down"), "{source}");
    }
    // Not one after the other.
    assert!(began.elapsed() < PATIENCE * 50, "{:?}", began.elapsed());
    assert_eq!(house.runs.count(), 0);
    assert!(instance.status().to_string().contains("it is down"), "{}", instance.status());
    assert!(!instance.status().is_up());
    fails.store(false, Ordering::SeqCst);
    assert_eq!(value(&instance, &house).await.unwrap(), Ran::Fresh(1));
}

/// S45
async fn a_claim_whose_answer_is_lost_is_asked_again(house: House) {
    let (instance, fails) = failing_at(&house, Call::Claim, When::After).await;
    let instance = instance.outage_patience(Duration::from_secs(60));
    let calling = tokio::spawn(value(&instance, &house));
    tokio::time::sleep(PATIENCE).await;
    fails.store(false, Ordering::SeqCst);
    assert_eq!(calling.await.unwrap().unwrap(), Ran::Fresh(1));
}

/// S15
async fn a_value_is_recorded_once_the_store_is_back(house: House) {
    let (instance, fails) = failing_at(&house, Call::Complete, When::Before).await;
    let calling = tokio::spawn(value(&instance, &house));
    while house.runs.count() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Longer than it waits before the work.
    tokio::time::sleep(PATIENCE * 2).await;
    fails.store(false, Ordering::SeqCst);
    assert_eq!(calling.await.unwrap().unwrap(), Ran::Fresh(1));
    assert_eq!(value(&house.instance().await, &house).await.unwrap(), Ran::Replayed(1));
}

/// S15
async fn a_value_that_cannot_be_recorded_comes_with_the_error(house: House) {
    let (instance, fails) = failing_at(&house, Call::Complete, When::Before).await;
    let instance = instance.lease(Duration::from_millis(300));
    let Err(RunError::Unrecorded { value: had, source: Some(source), .. }) =
        value(&instance, &house).await
    else {
        panic!("it is told that nothing could be recorded")
    };
    assert_eq!((&had[..], source.to_string().contains("it is down")), (&b"1"[..], true));
    fails.store(false, Ordering::SeqCst);
    // After the lease.
    assert_eq!(value(&instance, &house).await.unwrap(), Ran::Fresh(2));
}

/// S42
async fn a_ping_tells_how_the_store_is_and_leaves_nothing(house: House) {
    let (instance, fails) = failing_at(&house, Call::Heartbeat, When::Before).await;
    let told = instance.ping().await.unwrap_err();
    assert!(told.to_string().contains("it is down"), "{told}");
    assert!(!instance.status().is_up());
    fails.store(false, Ordering::SeqCst);
    instance.ping().await.unwrap();
    // Nobody holds it, and nobody has done it: whoever works on that key does not wait.
    let ping = RecordKey::new("mmate/ping", "ping").unwrap();
    let ran = instance.run(ping, None, async { Ok::<_, Failure>(7) }).await.unwrap();
    assert_eq!(ran, Ran::Fresh(7));
    instance.ping().await.unwrap();
}
