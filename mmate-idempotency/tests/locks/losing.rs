//! A lock that is lost while the handler runs.

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use mmate_core::{HandlerError, InProcess};
use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::{ClaimRequest, Claimant, ManualClock, RecordKey};
use mmate_idempotency::{LockPermit, MemoryStore, Permit, Store, Tracked};
use tokio::time::sleep;

use crate::scene::{Log, by_order, counts_when, orders, publish, start};

/// Runs a case with a recorder of its own and with time that passes when nothing else happens.
fn measured<F: Future<Output = ()>>(case: impl FnOnce(Snapshotter) -> F) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(case(snapshotter));
    });
}

fn lost(snapshotter: &Snapshotter) -> u64 {
    let all = snapshotter.snapshot().into_vec().into_iter();
    all.filter(|(key, ..)| key.key().name() == "mmate_leases_lost_total")
        .map(|(.., value)| if let DebugValue::Counter(count) = value { count } else { 0 })
        .sum()
}

const LEASE: Duration = Duration::from_secs(60);

/// Lets the store's time leap past the lease, and takes the lock.
async fn overtake(store: &MemoryStore, clock: &ManualClock) -> Permit {
    clock.advance(LEASE);
    let key = RecordKey::new("///orders", "o-1").unwrap();
    let request = ClaimRequest::new(key, Claimant::default(), LEASE);
    match store.claim(&request).await.unwrap() {
        Claim::Granted(grant) => Permit::new(&request, grant),
        other => panic!("granted, not {other:?}"),
    }
}

/// S19: the handler is cancelled, and what it has spawned is told.
#[test]
fn who_was_overtaken_is_cancelled_and_counted_and_spawned_work_is_told() {
    measured(async |snapshotter| {
        let (broker, log) = (InProcess::new(), Log::default());
        let clock = ManualClock::new();
        let store = MemoryStore::new().clock(clock.clone());
        let handler = {
            let log = log.clone();
            move |lock: LockPermit| {
                let log = log.clone();
                async move {
                    if log.lines().is_empty() {
                        log.add("inside");
                        let (told, lost) = (log.clone(), lock.lost());
                        tokio::spawn(async move {
                            lost.await;
                            told.add("told");
                        });
                        sleep(Duration::from_secs(3600)).await;
                    }
                    log.add("done");
                    Ok::<(), HandlerError>(())
                }
            }
        };
        let subscription =
            orders("q").middleware(by_order(store.clone()).lease(LEASE)).handler(handler);
        let running = start(&broker, "s", subscription).await;
        publish(&running, "a", "o-1").await;
        while log.lines().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        let second = overtake(&store, &clock).await;
        counts_when(&running, |counts| counts.deferred == 1).await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(log.lines(), ["inside", "told"]);
        assert_eq!(store.release(&second).await.unwrap(), Held::Yes, "it is untouched");
        broker.idle().await;
        assert_eq!(log.lines(), ["inside", "told", "done"]);
        assert_eq!(lost(&snapshotter), 1);
        let counts = running.stats().total();
        assert_eq!((counts.succeeded, counts.retried), (1, 0));
    });
}

/// S19: what was done is done; that somebody else may have been inside too is counted.
#[test]
fn who_was_overtaken_and_finished_before_it_knew_is_counted() {
    measured(async |snapshotter| {
        let broker = InProcess::new();
        let clock = ManualClock::new();
        let store = MemoryStore::new().clock(clock.clone());
        let handler = {
            let (store, clock) = (store.clone(), clock.clone());
            move || {
                let (store, clock) = (store.clone(), clock.clone());
                async move {
                    overtake(&store, &clock).await;
                    Ok::<(), HandlerError>(())
                }
            }
        };
        let subscription = orders("q").middleware(by_order(store).lease(LEASE)).handler(handler);
        let running = start(&broker, "s", subscription).await;
        publish(&running, "a", "o-1").await;
        broker.idle().await;
        assert_eq!(running.stats().total().succeeded, 1);
        assert_eq!(lost(&snapshotter), 1);
    });
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
    sleep(LEASE * 10).await;
    assert_eq!(log.lines(), ["attempt 1 is over"]);
    assert_eq!(running.stats().total().succeeded, 1);
}
