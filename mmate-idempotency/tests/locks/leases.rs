//! How long a lock holds: to the end of a living handler, and to that of a dead one's lease.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{HandlerError, Meta, Outcome};
use mmate_idempotency::LockPermit;
use tokio::time::sleep;

use crate::gate::Gate;
use crate::house::{House, overtake, seize};
use crate::place::on_every_store;
use crate::scene::{Inside, Log, counts_when, publish};

on_every_store! {
    the_lock_of_a_process_that_died_is_free_after_its_lease_and_not_before,
    a_handler_twenty_times_longer_than_its_lease_keeps_its_lock,
    the_fence_of_a_lock_rises_with_each_who_holds_it,
    the_fence_of_a_lock_rises_across_the_end_of_leases_and_in_every_process,
}

/// A lease that is not over within a test, but by a clock that is moved.
const LEASE: Duration = Duration::from_secs(3600);

/// Writes down the lock's fence, such that a higher one is a greater text.
fn fencing(
    log: &Log,
) -> impl Fn(LockPermit) -> std::future::Ready<Result<(), HandlerError>> + Send + Sync + use<> {
    let log = log.clone();
    move |lock| {
        assert_eq!((lock.key().scope(), lock.key().id()), ("///orders", "o-1"));
        assert_eq!(u64::try_from(lock.fence_i64()).unwrap(), lock.fence());
        log.add(fence(lock.fence()));
        std::future::ready(Ok(()))
    }
}

fn fence(fence: u64) -> String {
    format!("{fence:020}")
}

/// S14
async fn the_lock_of_a_process_that_died_is_free_after_its_lease_and_not_before(mut house: House) {
    let clock = house.clock();
    let lock = house.lock().await.lease(LEASE);
    let handler = fencing(&house.log);
    let lives = house.instance(|builder| builder.middleware(lock).handler(handler)).await;
    let died = seize(&house.store().await, LEASE).await;
    publish(&lives, "a", "o-1").await;
    clock.advance(LEASE - Duration::from_millis(1));
    counts_when(&lives, |counts| counts.deferred >= 2).await;
    assert!(house.log.lines().is_empty());
    clock.advance(Duration::from_millis(1));
    let counts = counts_when(&lives, |counts| counts.succeeded == 1).await;
    assert_eq!(counts.retried, 0);
    assert!(house.log.lines()[0] > fence(died.fence()), "S20: {:?}", house.log.lines());
    lives.stop().await.unwrap();
}

/// S18: by heartbeats; meanwhile another process looks at the lock, and looks again.
async fn a_handler_twenty_times_longer_than_its_lease_keeps_its_lock(house: House) {
    let lease = Duration::from_millis(600);
    let (inside, gate) = (Inside::default(), Gate::new());
    let mut running = Vec::new();
    for _ in 0..2 {
        let (log, inside, gate) = (house.log.clone(), inside.clone(), gate.clone());
        let handler = move |meta: Meta| {
            let (log, entered, gate) = (log.clone(), inside.enter(), gate.clone());
            async move {
                let _entered = entered;
                let id = meta.id.unwrap().to_string();
                if id == "long" {
                    gate.pass().await;
                    sleep(lease * 20).await;
                }
                log.add(id);
                Ok::<(), HandlerError>(())
            }
        };
        let lock = house.lock().await.lease(lease).wait(Duration::from_secs(60));
        running.push(house.instance(|builder| builder.middleware(lock).handler(handler)).await);
    }
    publish(&running[0], "long", "o-1").await;
    gate.entered().await;
    gate.open();
    publish(&running[0], "other", "o-1").await;
    house.broker.idle().await;
    assert_eq!(house.log.lines(), ["long", "other"]);
    assert_eq!(inside.most(), 1);
    for one in running {
        one.stop().await.unwrap();
    }
}

/// S20
async fn the_fence_of_a_lock_rises_with_each_who_holds_it(house: House) {
    let (attempts, writes) = (AtomicUsize::new(0), fencing(&house.log));
    let handler = move |lock: LockPermit| {
        let written = writes(lock);
        let first = attempts.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            written.await?;
            Ok::<_, HandlerError>(if first {
                Outcome::Retry { after: None }
            } else {
                Outcome::Done
            })
        }
    };
    let lock = house.lock().await;
    let running = house.instance(|builder| builder.middleware(lock).handler(handler)).await;
    for id in ["a", "b", "c"] {
        publish(&running, id, "o-1").await;
        house.broker.idle().await;
    }
    let fences = house.log.lines();
    assert_eq!(fences.len(), 4);
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

/// S20: a process that took over what another one left, and was taken over from itself; then one
/// that begins with a new connection, and finds the lock free.
async fn the_fence_of_a_lock_rises_across_the_end_of_leases_and_in_every_process(mut house: House) {
    let clock = house.clock();
    let store = house.store().await;
    store.migrate().await.unwrap();
    let mut fences = vec![fence(seize(&store, LEASE).await.fence())];
    for _ in 0..3 {
        let store = house.store().await;
        fences.push(fence(overtake(&store, &clock, LEASE).await.fence()));
    }
    clock.advance(LEASE);
    for id in ["a", "b"] {
        let (lock, handler) = (house.lock().await.lease(LEASE), fencing(&house.log));
        let running = house.instance(|builder| builder.middleware(lock).handler(handler)).await;
        publish(&running, id, "o-1").await;
        counts_when(&running, |counts| counts.succeeded == 1).await;
        running.stop().await.unwrap();
    }
    fences.extend(house.log.lines());
    assert_eq!(fences.len(), 6);
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}
