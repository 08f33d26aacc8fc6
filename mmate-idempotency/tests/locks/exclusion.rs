//! Who is kept out, for how long, and what becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{Attempt, HandlerError, InProcess, Meta, Running};
use mmate_idempotency::{Key, Locked, MemoryStore, OnBusy};
use tokio::sync::Barrier;
use tokio::time::sleep;

use crate::faulty::{Call, Fault, Faulty, When};
use crate::gate::Gate;
use crate::house::House;
use crate::place::on_every_store;
use crate::scene::{Inside, Log, by_order, counts_when, orders, publish, start};

on_every_store! {
    services_that_share_a_scope_exclude_each_other,
    a_message_whose_lock_is_held_is_deferred,
    a_message_may_wait_for_its_lock,
    a_message_may_be_dropped_while_its_lock_is_held,
    a_lock_is_released_after_success_failure_panic_timeout_and_dead_letter,
    different_keys_run_side_by_side,
}

const MESSAGES: usize = 8;

/// Two services with a subscription each work on one order.
async fn services_that_share_a_scope_exclude_each_other(house: House) {
    let inside = Inside::default();
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
        let lock = house.lock().await.wait(Duration::from_secs(30));
        let subscription = orders(service).middleware(lock).handler(handler);
        running.push(start(&house.broker, service, subscription).await);
    }
    for n in 0..MESSAGES {
        publish(&running[0], &format!("{n}"), "o-1").await;
    }
    house.broker.idle().await;
    assert_eq!(inside.most(), 1);
    for one in running {
        assert_eq!(one.stats().total().succeeded, MESSAGES as u64);
        one.stop().await.unwrap();
    }
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

async fn different_keys_run_side_by_side(house: House) {
    let meets = meets();
    let mut running = Vec::new();
    for _ in 0..2 {
        let lock = house.lock().await;
        let handler = meets.clone();
        running.push(house.instance(|builder| builder.middleware(lock).handler(handler)).await);
    }
    publish(&running[0], "a", "o-1").await;
    publish(&running[0], "b", "o-2").await;
    for one in running {
        counts_when(&one, |counts| counts.succeeded == 1).await;
    }
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
async fn a_lock_is_released_after_success_failure_panic_timeout_and_dead_letter(house: House) {
    let handler =
        async |meta: Meta, Attempt(attempt): Attempt| match (meta.id.unwrap().as_str(), attempt) {
            ("fails", 1) => Err(HandlerError::retryable("at first")),
            ("panics", 1) => panic!("at first"),
            ("hangs", 1) => std::future::pending().await,
            ("poison", _) => Err(HandlerError::permanent("for ever")),
            _ => Ok(()),
        };
    // So long a lease that nobody lives to see its end.
    let lock = house.lock().await.lease(Duration::from_secs(100 * 24 * 3600));
    let subscription =
        orders("q").middleware(lock).timeout(Duration::from_secs(1)).handler(handler);
    let running = start(&house.broker, "s", subscription).await;
    for id in ["fine", "fails", "panics", "hangs", "poison", "last"] {
        publish(&running, id, "o-1").await;
        house.broker.idle().await;
    }
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (5, 3, 1));
    assert_eq!(counts.deferred, 0, "each found the lock free");
}

/// A process that holds the lock until it is told to go on, and another one that gets a message of
/// the same order meanwhile, and takes the lock as it is told here.
async fn contended(
    house: &House,
    how: impl FnOnce(Locked) -> Locked,
    looks: &Arc<AtomicUsize>,
    case: impl AsyncFnOnce(&Running, &Gate),
) {
    let gate = Gate::new();
    let handler = || {
        let (log, gate) = (house.log.clone(), gate.clone());
        move |meta: Meta| {
            let (log, gate) = (log.clone(), gate.clone());
            async move {
                let id = meta.id.unwrap().to_string();
                log.add(id.as_str());
                if id == "holder" {
                    gate.pass().await;
                }
                Ok::<(), HandlerError>(())
            }
        }
    };
    let lock = house.lock().await;
    let holder = house.instance(|builder| builder.middleware(lock).handler(handler())).await;
    publish(&holder, "holder", "o-1").await;
    gate.entered().await;
    let counted = Arc::clone(looks);
    let fault: Fault = Arc::new(move |call, when| {
        if (call, when) == (Call::Claim, When::After) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Box::pin(async { Ok(()) })
    });
    let lock = how(by_order(Faulty { store: house.store().await, fault }));
    let other = house.instance(|builder| builder.middleware(lock).handler(handler())).await;
    publish(&other, "other", "o-1").await;
    case(&other, &gate).await;
    for one in [holder, other] {
        one.stop().await.unwrap();
    }
}

/// S3: shown again later; it counts as no attempt.
async fn a_message_whose_lock_is_held_is_deferred(house: House) {
    contended(
        &house,
        |lock| lock,
        &Arc::default(),
        async |other, gate| {
            counts_when(other, |counts| counts.deferred >= 2).await;
            assert_eq!(house.log.lines(), ["holder"]);
            gate.open();
            house.broker.idle().await;
            let counts = other.stats().total();
            assert_eq!((counts.retried, counts.dead_lettered), (0, 0));
            assert_eq!(house.log.lines(), ["holder", "other"]);
        },
    )
    .await;
}

/// S4
async fn a_message_may_wait_for_its_lock(house: House) {
    let looks = Arc::new(AtomicUsize::new(0));
    let waits = |lock: Locked| lock.wait(Duration::from_secs(60));
    contended(&house, waits, &looks, async |other, gate| {
        counts_when(other, |_| looks.load(Ordering::SeqCst) >= 3).await;
        assert_eq!(house.log.lines(), ["holder"]);
        gate.open();
        let counts = counts_when(other, |counts| counts.succeeded == 1).await;
        assert_eq!((counts.deferred, counts.fetched), (0, 1));
        assert_eq!(house.log.lines(), ["holder", "other"]);
    })
    .await;
}

/// S4
#[tokio::test(start_paused = true)]
async fn a_message_that_has_waited_long_enough_for_its_lock_is_deferred() {
    let house = House::new(crate::place::Kind::Memory);
    let waits = |lock: Locked| lock.wait(Duration::from_secs(5));
    contended(&house, waits, &Arc::default(), async |other, gate| {
        sleep(Duration::from_secs(4)).await;
        assert_eq!(other.stats().total().deferred, 0);
        counts_when(other, |counts| counts.deferred == 1).await;
        gate.open();
        house.broker.idle().await;
        assert_eq!(house.log.lines(), ["holder", "other"]);
    })
    .await;
}

/// S4: it is lost, and counted.
async fn a_message_may_be_dropped_while_its_lock_is_held(house: House) {
    let drops = |lock: Locked| lock.on_busy(OnBusy::Drop);
    contended(&house, drops, &Arc::default(), async |other, gate| {
        let counts = counts_when(other, |counts| counts.duplicates.total() == 1).await;
        assert_eq!((counts.duplicates.handler, counts.deferred), (1, 0));
        gate.open();
        house.broker.idle().await;
        assert_eq!(house.log.lines(), ["holder"]);
    })
    .await;
}
