//! Leases.

use std::sync::Arc;
use std::time::Duration;

use mmate_idempotency::{Idempotent, Ran, RunError};
use tokio::time::sleep;

use crate::faulty::{Call, Fault, Faulty, down};
use crate::house::{Failure, Gate, House, key, on_every_store};

on_every_store! {
    work_that_takes_twenty_leases_runs_once,
    work_whose_lease_is_lost_is_cancelled_and_the_other_ones_value_stands,
    work_is_told_its_fence,
}

/// S18
async fn work_that_takes_twenty_leases_runs_once(house: House) {
    let lease = Duration::from_millis(600);
    let instances = [house.instance().await.lease(lease), house.instance().await.lease(lease)];
    let call = |at: &Idempotent| {
        let runs = house.runs.clone();
        at.run(key("a"), None, async move {
            sleep(lease * 20).await;
            Ok::<_, Failure>(runs.next())
        })
        .into_future()
    };
    let (one, other) = tokio::join!(call(&instances[0]), call(&instances[1]));
    assert_eq!([one.unwrap(), other.unwrap()].map(Ran::into_value), [1, 1]);
    assert_eq!(house.runs.count(), 1);
}

/// S19: its heartbeats do not arrive, and another takes over.
async fn work_whose_lease_is_lost_is_cancelled_and_the_other_ones_value_stands(house: House) {
    let fault: Fault = Arc::new(|call, _| {
        Box::pin(async move { if call == Call::Heartbeat { Err(down()) } else { Ok(()) } })
    });
    let lease = Duration::from_millis(300);
    let store = Faulty { store: house.store().await, fault };
    let zombie = Idempotent::new(store).lease(lease);
    let gate = Gate::new();
    let never = gate.clone();
    let cancelled = zombie.run(key("a"), None, async move {
        never.pass().await;
        Ok::<_, Failure>(1)
    });
    let cancelled = tokio::spawn(cancelled.into_future());
    gate.entered().await;
    let other = house.instance().await;
    let got = other.run(key("a"), None, async { Ok::<_, Failure>(2) }).await;
    assert_eq!(got.unwrap(), Ran::Fresh(2));
    let error = cancelled.await.unwrap().unwrap_err();
    assert!(matches!(error, RunError::LeaseLost { .. }), "{error:?}");
    let again = zombie.run(key("a"), None, async { Ok::<_, Failure>(3) }).await;
    assert_eq!(again.unwrap(), Ran::Replayed(2));
}

/// S20
async fn work_is_told_its_fence(house: House) {
    let instance = house.instance().await;
    let fence = |fails: bool| {
        let (seen, sees) = tokio::sync::oneshot::channel();
        let call =
            instance.run_with(key("a"), None, async move |permit: mmate_idempotency::Permit| {
                seen.send(permit.fence()).unwrap();
                if fails { Err(Failure("no".to_owned())) } else { Ok(()) }
            });
        async move {
            let _ = call.await;
            sees.await.unwrap()
        }
    };
    let first = fence(true).await;
    assert!(fence(false).await > first);
}
