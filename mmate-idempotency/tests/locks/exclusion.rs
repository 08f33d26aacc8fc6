//! Who is kept out, for how long, and what becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{Attempt, HandlerError, InProcess, Meta, Outcome};
use mmate_idempotency::{Key, LockPermit, Locked, MemoryStore, OnBusy, SqliteStore, Store};
use tokio::sync::{Barrier, Semaphore};
use tokio::time::sleep;

use crate::scene::{Inside, Log, by_order, counts_when, orders, publish, start};

const MESSAGES: usize = 8;

/// Two services with a subscription each work on one order.
async fn exclude_each_other(store: impl Store + Clone) {
    let (broker, inside) = (InProcess::new(), Inside::default());
    let mut running = Vec::new();
    for service in ["billing", "shipping"] {
        let inside = inside.clone();
        let handler = move || {
            let entered = inside.enter();
            async move {
                let _entered = entered;
                sleep(Duration::from_millis(5)).await;
                Ok::<(), HandlerError>(())
            }
        };
        let lock = by_order(store.clone()).wait(Duration::from_secs(30));
        running
            .push(start(&broker, service, orders(service).middleware(lock).handler(handler)).await);
    }
    for n in 0..MESSAGES {
        publish(&running[0], &format!("{n}"), "o-1").await;
    }
    broker.idle().await;
    assert_eq!(inside.most(), 1);
    for one in running {
        assert_eq!(one.stats().total().succeeded, MESSAGES as u64);
        one.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_share_a_scope_exclude_each_other_in_memory() {
    exclude_each_other(MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_share_a_scope_exclude_each_other_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("locks.db")).await.unwrap();
    exclude_each_other(store).await;
}

/// Succeeds when two are inside at the same time.
fn meets() -> impl Fn() -> futures_util::future::BoxFuture<'static, Result<(), HandlerError>>
+ Clone
+ Send
+ Sync
+ 'static {
    let barrier = Arc::new(Barrier::new(2));
    move || {
        let barrier = Arc::clone(&barrier);
        Box::pin(async move {
            barrier.wait().await;
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_common_scope_each_subscription_locks_for_itself() {
    let (broker, store, meets) = (InProcess::new(), MemoryStore::new(), meets());
    let mut running = Vec::new();
    for service in ["billing", "shipping"] {
        let lock = Locked::by(store.clone(), Key::json_pointer("/order/id"));
        let subscription = orders(service).middleware(lock).handler(meets.clone());
        running.push(start(&broker, service, subscription).await);
    }
    publish(&running[0], "a", "o-1").await;
    for one in running {
        counts_when(&one, |counts| counts.succeeded == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn different_keys_run_side_by_side() {
    let broker = InProcess::new();
    let subscription = orders("q").middleware(by_order(MemoryStore::new())).handler(meets());
    let running = start(&broker, "s", subscription).await;
    publish(&running, "a", "o-1").await;
    publish(&running, "b", "o-2").await;
    counts_when(&running, |counts| counts.succeeded == 2).await;
}

/// The last line of the table of promises.
#[tokio::test(start_paused = true)]
async fn a_lock_is_not_deduplication() {
    let (broker, log) = (InProcess::new(), Log::default());
    let handler = {
        let log = log.clone();
        move |meta: Meta| {
            log.add(meta.id.unwrap().to_string());
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let subscription = orders("q").middleware(by_order(MemoryStore::new())).handler(handler);
    let running = start(&broker, "s", subscription).await;
    broker.duplicate_next(1);
    publish(&running, "a", "o-1").await;
    broker.idle().await;
    assert_eq!(log.lines(), ["a", "a"]);
    assert_eq!(running.stats().total().duplicates.total(), 0);
}

/// S9, S10, S11: whatever the outcome.
#[tokio::test(start_paused = true)]
async fn a_lock_is_released_after_success_failure_panic_timeout_and_dead_letter() {
    let broker = InProcess::new();
    let store = MemoryStore::new();
    let handler =
        async |meta: Meta, Attempt(attempt): Attempt| match (meta.id.unwrap().as_str(), attempt) {
            ("fails", 1) => Err(HandlerError::retryable("at first")),
            ("panics", 1) => panic!("at first"),
            ("hangs", 1) => std::future::pending().await,
            ("poison", _) => Err(HandlerError::permanent("for ever")),
            _ => Ok(()),
        };
    // So long a lease that nobody lives to see its end.
    let lock = by_order(store.clone()).lease(Duration::from_secs(100 * 24 * 3600));
    let subscription =
        orders("q").middleware(lock).timeout(Duration::from_secs(1)).handler(handler);
    let running = start(&broker, "s", subscription).await;
    for id in ["fine", "fails", "panics", "hangs", "poison", "last"] {
        publish(&running, id, "o-1").await;
        broker.idle().await;
    }
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (5, 3, 1));
    assert_eq!(counts.deferred, 0, "each found the lock free");
}

/// One message that holds the lock until it is told to go on, and another one that comes meanwhile.
async fn contended(lock: Locked, case: impl AsyncFnOnce(&mmate_core::Running, &Semaphore, &Log)) {
    let (broker, log) = (InProcess::new(), Log::default());
    let go_on = Arc::new(Semaphore::new(0));
    let handler = {
        let (log, go_on) = (log.clone(), Arc::clone(&go_on));
        move |meta: Meta| {
            let (log, go_on) = (log.clone(), Arc::clone(&go_on));
            async move {
                let id = meta.id.unwrap().to_string();
                log.add(id.as_str());
                if id == "holder" {
                    go_on.acquire().await.unwrap().forget();
                }
                Ok::<(), HandlerError>(())
            }
        }
    };
    let running = start(&broker, "s", orders("q").middleware(lock).handler(handler)).await;
    publish(&running, "holder", "o-1").await;
    while log.lines().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    publish(&running, "other", "o-1").await;
    case(&running, &go_on, &log).await;
    running.stop().await.unwrap();
}

/// S3: shown again later; it counts as no attempt.
#[tokio::test(start_paused = true)]
async fn a_message_whose_lock_is_held_is_deferred() {
    contended(by_order(MemoryStore::new()), async |running, go_on, log| {
        counts_when(running, |counts| counts.deferred >= 3).await;
        assert_eq!(log.lines(), ["holder"]);
        go_on.add_permits(1);
        let counts = counts_when(running, |counts| counts.succeeded == 2).await;
        assert_eq!((counts.retried, counts.dead_lettered), (0, 0));
        assert_eq!(log.lines(), ["holder", "other"]);
    })
    .await;
}

/// S4
#[tokio::test(start_paused = true)]
async fn a_message_may_wait_for_its_lock_and_is_deferred_after_that() {
    let lock = by_order(MemoryStore::new()).wait(Duration::from_secs(5));
    contended(lock, async |running, go_on, log| {
        sleep(Duration::from_secs(4)).await;
        assert_eq!(running.stats().total().deferred, 0);
        counts_when(running, |counts| counts.deferred == 1).await;
        go_on.add_permits(1);
        counts_when(running, |counts| counts.succeeded == 2).await;
        assert_eq!(log.lines(), ["holder", "other"]);
    })
    .await;
    contended(
        by_order(MemoryStore::new()).wait(Duration::from_secs(5)),
        async |running, go_on, _| {
            sleep(Duration::from_secs(3)).await;
            go_on.add_permits(1);
            let counts = counts_when(running, |counts| counts.succeeded == 2).await;
            assert_eq!(counts.deferred, 0);
        },
    )
    .await;
}

/// S4: it is lost, and counted.
#[tokio::test(start_paused = true)]
async fn a_message_may_be_dropped_while_its_lock_is_held() {
    let lock = by_order(MemoryStore::new()).on_busy(OnBusy::Drop);
    contended(lock, async |running, go_on, log| {
        let counts = counts_when(running, |counts| counts.duplicates.total() == 1).await;
        assert_eq!((counts.duplicates.handler, counts.deferred), (1, 0));
        go_on.add_permits(1);
        counts_when(running, |counts| counts.succeeded == 1).await;
        assert_eq!(log.lines(), ["holder"]);
    })
    .await;
}

/// S20
#[tokio::test(start_paused = true)]
async fn the_fence_of_a_lock_rises_with_each_who_holds_it() {
    let (broker, log) = (InProcess::new(), Log::default());
    let (attempts, fences) = (Arc::new(AtomicUsize::new(0)), log.clone());
    let handler = move |lock: LockPermit| {
        assert_eq!((lock.key().scope(), lock.key().id()), ("///orders", "o-1"));
        assert_eq!(u64::try_from(lock.fence_i64()).unwrap(), lock.fence());
        fences.add(format!("{:020}", lock.fence()));
        let first = attempts.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                Ok(Outcome::Retry { after: None })
            } else {
                Ok::<_, HandlerError>(Outcome::Done)
            }
        }
    };
    let subscription = orders("q").middleware(by_order(MemoryStore::new())).handler(handler);
    let running = start(&broker, "s", subscription).await;
    for id in ["a", "b", "c"] {
        publish(&running, id, "o-1").await;
        broker.idle().await;
    }
    let fences = log.lines();
    assert_eq!(fences.len(), 4);
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}
