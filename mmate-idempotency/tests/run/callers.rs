//! Many callers at once.

use std::time::Duration;

use mmate_idempotency::{Idempotent, Ran, RunError};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::house::{Failure, House, failure, key, on_every_store};

on_every_store! {
    a_hundred_and_fifty_callers_of_one_key_run_it_once_and_all_get_its_value,
    ten_thousand_callers_of_one_key_run_it_once_and_all_get_its_value,
    ten_thousand_callers_at_one_instance_make_one_claim_between_them,
    callers_of_many_keys_each_get_their_own_value,
    after_a_failure_exactly_one_of_those_who_wait_goes_on,
}

/// Has so many call for one key at four instances, and returns what each got.
async fn all_at_once(house: &House, callers: usize) -> Vec<Ran<usize>> {
    let mut instances = Vec::new();
    for _ in 0..4 {
        instances.push(house.instance().await);
    }
    let mut calls = JoinSet::new();
    for caller in 0..callers {
        let runs = house.runs.clone();
        let work = async move {
            // Long enough for the others to come.
            sleep(Duration::from_millis(50)).await;
            Ok::<_, Failure>(runs.next() * 7)
        };
        let call = instances[caller % 4].run(key("a"), None, work);
        calls.spawn(async move { call.await.unwrap() });
    }
    calls.join_all().await
}

fn once(house: &House, got: &[Ran<usize>], callers: usize) {
    assert_eq!(house.runs.count(), 1);
    assert_eq!(got.iter().filter(|ran| **ran == Ran::Fresh(7)).count(), 1);
    assert_eq!(got.iter().filter(|ran| **ran == Ran::Replayed(7)).count(), callers - 1);
}

/// S1
async fn a_hundred_and_fifty_callers_of_one_key_run_it_once_and_all_get_its_value(house: House) {
    let got = all_at_once(&house, 150).await;
    once(&house, &got, 150);
}

/// S1
async fn ten_thousand_callers_of_one_key_run_it_once_and_all_get_its_value(house: House) {
    let got = all_at_once(&house, 10_000).await;
    once(&house, &got, 10_000);
}

async fn ten_thousand_callers_at_one_instance_make_one_claim_between_them(house: House) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::faulty::{Call, Faulty, When};

    let claims = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&claims);
    let fault = Arc::new(move |call, when| {
        let one = usize::from((call, when) == (Call::Claim, When::Before));
        counted.fetch_add(one, Ordering::SeqCst);
        Box::pin(async { Ok(()) }) as futures_util::future::BoxFuture<'static, _>
    });
    let instance = Idempotent::new(Faulty { store: house.store().await, fault });
    // All have come before the work is done.
    let come = Arc::new(tokio::sync::Barrier::new(2));
    let work = |runs: crate::house::Runs, come: Arc<tokio::sync::Barrier>| async move {
        come.wait().await;
        Ok::<_, Failure>(runs.next())
    };
    let mut calls: Vec<_> = (0..10_000)
        .map(|_| {
            let call = instance.run(key("a"), None, work(house.runs.clone(), Arc::clone(&come)));
            call.into_future()
        })
        .collect();
    // Each takes its place.
    for call in &mut calls {
        assert!(futures_util::poll!(call).is_pending());
    }
    let together = futures_util::future::try_join_all(calls);
    let (got, _) = tokio::join!(together, come.wait());
    assert!(got.unwrap().iter().all(|ran| *ran == Ran::Fresh(1) || *ran == Ran::Replayed(1)));
    assert_eq!((house.runs.count(), claims.load(Ordering::SeqCst)), (1, 1));
}

/// S1
async fn callers_of_many_keys_each_get_their_own_value(house: House) {
    let instances = [house.instance().await, house.instance().await];
    let mut calls = JoinSet::new();
    for caller in 0..600 {
        let (number, runs) = (caller / 3, house.runs.clone());
        let work = async move {
            runs.next();
            Ok::<_, Failure>(number)
        };
        let call = instances[caller % 2].run(key(&format!("key-{number}")), None, work);
        calls.spawn(async move { (number, call.await.unwrap().into_value()) });
    }
    for (number, got) in calls.join_all().await {
        assert_eq!(number, got);
    }
    assert_eq!(house.runs.count(), 200);
}

/// S9
async fn after_a_failure_exactly_one_of_those_who_wait_goes_on(house: House) {
    let instances = [house.instance().await, house.instance().await];
    let mut calls = JoinSet::new();
    for caller in 0..100 {
        let runs = house.runs.clone();
        let work = async move {
            sleep(Duration::from_millis(5)).await;
            match runs.next() {
                1..=3 => Err(failure("not yet")),
                run => Ok(run),
            }
        };
        let call = instances[caller % 2].run(key("a"), None, work);
        calls.spawn(call.into_future());
    }
    let got = calls.join_all().await;
    let count = |is: fn(&Result<Ran<usize>, RunError<Failure>>) -> bool| {
        got.iter().filter(|got| is(got)).count()
    };
    let failed = count(|got| matches!(got, Err(RunError::Failed { replayed: false, .. })));
    let fresh = count(|got| matches!(got, Ok(Ran::Fresh(4))));
    let replayed = count(|got| matches!(got, Ok(Ran::Replayed(4))));
    assert_eq!((failed, fresh, replayed, house.runs.count()), (3, 1, 96, 4));
}
