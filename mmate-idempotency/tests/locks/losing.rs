//! A lock that is lost while the handler runs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use mmate_core::{HandlerError, InProcess};
use mmate_idempotency::protocol::Held;
use mmate_idempotency::{LockPermit, MemoryStore, Permit, Store, Tracked};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::faulty::{Call, Fault, Faulty, down};
use crate::house::{House, overtake, seize};
use crate::place::on_every_store;
use crate::scene::{Log, by_order, counts_when, orders, publish, start};

on_every_store! {
    who_was_overtaken_is_cancelled_and_counted_and_spawned_work_is_told,
    who_was_overtaken_and_finished_before_it_knew_is_counted,
    who_cannot_prolong_its_lock_is_cancelled_and_counted_when_its_lease_is_over,
}

const LIMIT: Duration = Duration::from_secs(100);

/// Runs a case with a recorder of its own, which holds for one thread.
async fn measured<F: Future<Output = ()>>(case: impl FnOnce(Snapshotter) -> F + Send + 'static) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = move || {
        metrics::with_local_recorder(&recorder, || {
            // Nobody else ends what blocks a thread.
            let case = async { timeout(LIMIT, case(snapshotter)).await };
            runtime.block_on(case).expect("the case hangs");
        });
    };
    spawn_blocking(run).await.unwrap();
}

fn lost(snapshotter: &Snapshotter) -> u64 {
    let all = snapshotter.snapshot().into_vec().into_iter();
    all.filter(|(key, ..)| key.key().name() == "mmate_leases_lost_total")
        .map(|(.., value)| if let DebugValue::Counter(count) = value { count } else { 0 })
        .sum()
}

/// What the handler does: the first one spawns work that waits for the loss, and does not end.
fn clinging(
    log: &Log,
) -> impl Fn(LockPermit) -> futures_util::future::BoxFuture<'static, Result<(), HandlerError>>
+ Send
+ Sync
+ 'static {
    let log = log.clone();
    move |lock| {
        let log = log.clone();
        Box::pin(async move {
            if log.lines().is_empty() {
                log.add("inside");
                let (told, lost) = (log.clone(), lock.lost());
                tokio::spawn(async move {
                    lost.await;
                    told.add("told");
                });
                std::future::pending::<()>().await;
            }
            log.add("done");
            Ok(())
        })
    }
}

/// S19: the handler is cancelled at its next heartbeat, and what it has spawned is told.
async fn who_was_overtaken_is_cancelled_and_counted_and_spawned_work_is_told(mut house: House) {
    const LEASE: Duration = Duration::from_secs(3);
    let clock = house.clock();
    measured(async move |snapshotter| {
        let log = house.log.clone();
        let (lock, handler) = (house.lock().await.lease(LEASE), clinging(&log));
        let running = house.instance(|builder| builder.middleware(lock).handler(handler)).await;
        publish(&running, "a", "o-1").await;
        counts_when(&running, |_| log.lines() == ["inside"]).await;
        let store = house.store().await;
        let second = overtake(&store, &clock, LEASE).await;
        counts_when(&running, |counts| counts.deferred == 1).await;
        counts_when(&running, |_| log.lines() == ["inside", "told"]).await;
        assert_eq!(store.release(&second).await.unwrap(), Held::Yes, "it is untouched");
        house.broker.idle().await;
        assert_eq!(log.lines(), ["inside", "told", "done"]);
        assert_eq!(lost(&snapshotter), 1);
        let counts = running.stats().total();
        assert_eq!((counts.succeeded, counts.retried), (1, 0));
    })
    .await;
}

/// S19: what was done is done; that somebody else may have been inside too is counted.
async fn who_was_overtaken_and_finished_before_it_knew_is_counted(mut house: House) {
    const LEASE: Duration = Duration::from_secs(3600);
    let clock = house.clock();
    measured(async move |snapshotter| {
        let store = house.store().await;
        let second: Arc<Mutex<Vec<Permit>>> = Arc::default();
        let handler = {
            let (store, second) = (store.clone(), Arc::clone(&second));
            move || {
                let (store, second, clock) = (store.clone(), Arc::clone(&second), clock.clone());
                async move {
                    let permit = overtake(&store, &clock, LEASE).await;
                    second.lock().unwrap().push(permit);
                    Ok::<(), HandlerError>(())
                }
            }
        };
        let lock = house.lock().await.lease(LEASE);
        let running = house.instance(|builder| builder.middleware(lock).handler(handler)).await;
        publish(&running, "a", "o-1").await;
        house.broker.idle().await;
        assert_eq!(running.stats().total().succeeded, 1);
        let second = second.lock().unwrap().pop().unwrap();
        assert_eq!(store.release(&second).await.unwrap(), Held::Yes, "it is untouched");
        assert_eq!(lost(&snapshotter), 1);
    })
    .await;
}

/// S19, S22: its heartbeats do not arrive.
async fn who_cannot_prolong_its_lock_is_cancelled_and_counted_when_its_lease_is_over(house: House) {
    const LEASE: Duration = Duration::from_secs(1);
    measured(async move |snapshotter| {
        let fault: Fault = Arc::new(|call, _| {
            Box::pin(async move { if call == Call::Heartbeat { Err(down()) } else { Ok(()) } })
        });
        let log = house.log.clone();
        let lock = by_order(Faulty { store: house.store().await, fault }).lease(LEASE);
        let handler = clinging(&log);
        let running = house.instance(|builder| builder.middleware(lock).handler(handler)).await;
        publish(&running, "a", "o-1").await;
        house.broker.idle().await;
        assert_eq!(log.lines(), ["inside", "told", "done"]);
        assert_eq!(lost(&snapshotter), 1);
        let counts = running.stats().total();
        assert_eq!((counts.succeeded, counts.retried), (1, 0));
        assert!(counts.deferred >= 1, "{counts:?}");
        // It was given back, and is to be had.
        seize(&house.store().await, LEASE).await;
    })
    .await;
}

/// A claim that is given back is lost to who works on without its handler; one that succeeded is
/// not.
#[tokio::test(start_paused = true)]
async fn work_that_outlives_its_handler_is_told_when_the_claim_is_given_back() {
    let (broker, log) = (InProcess::new(), Log::default());
    let handler = {
        let log = log.clone();
        move |permit: Permit| {
            let (told, lost) = (log.clone(), permit.lost());
            tokio::spawn(async move {
                lost.await;
                told.add(format!("attempt {} is over", permit.attempt()));
                assert!(permit.is_lost());
            });
            let failed = log.lines().is_empty();
            async move { if failed { Err(HandlerError::retryable("at first")) } else { Ok(()) } }
        }
    };
    let strategy = Tracked::new(MemoryStore::new());
    let running = start(&broker, "s", orders("q").idempotent(strategy).handler(handler)).await;
    publish(&running, "a", "o-1").await;
    broker.idle().await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(log.lines(), ["attempt 1 is over"]);
    assert_eq!(running.stats().total().succeeded, 1);
}
