//! Processes that die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mmate_core::{Outcome, Running};
use mmate_idempotency::Tracked;
use tokio::sync::Semaphore;

use crate::databases::By;
use crate::faulty::{Call, Faulty, When};
use crate::house::{House, Phase, counts_when, ended, everywhere, just_the_effect, script, stop};

everywhere! {
    a_crash_after_the_claim_loses_nothing,
    a_crash_in_the_handler_loses_nothing,
    a_crash_after_the_effect_loses_nothing,
    a_crash_after_done_repeats_nothing,
}

const LEASE: Duration = Duration::from_millis(500);

/// Where the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    Claimed,
    InHandler,
    AfterEffect,
    Done,
}

/// An instance that stops at a point, and from then on reaches no store; it tells when it is there.
async fn doomed(house: &House, point: Point) -> (Running, Arc<Semaphore>) {
    let there = Arc::new(Semaphore::new(0));
    let dead = Arc::new(AtomicBool::new(false));
    let stops = {
        let (there, dead) = (Arc::clone(&there), Arc::clone(&dead));
        script(move |visit| {
            let at = match visit.phase {
                Phase::BeforeEffect => Point::InHandler,
                Phase::AfterEffect => Point::AfterEffect,
            };
            let (there, dead) = (Arc::clone(&there), Arc::clone(&dead));
            async move {
                if at == point {
                    dead.store(true, Ordering::SeqCst);
                    there.add_permits(1);
                    std::future::pending::<()>().await;
                }
                Ok(Outcome::Done)
            }
        })
    };
    if house.kind.is_transactional() {
        return (house.instance(stops).await, there);
    }
    let fault = {
        let there = Arc::clone(&there);
        move |call: Call, when: When| {
            let at = match (call, when) {
                (Call::Claim, When::After) => Some(Point::Claimed),
                (Call::Complete, When::After) => Some(Point::Done),
                _ => None,
            };
            if at == Some(point) {
                dead.store(true, Ordering::SeqCst);
                there.add_permits(1);
            }
            let dead = dead.load(Ordering::SeqCst);
            Box::pin(async move { if dead { std::future::pending().await } else { Ok(()) } }) as _
        }
    };
    let store = Faulty { store: house.store().await, fault: Arc::new(fault) };
    let strategy = Tracked::new(store).lease(LEASE).answer_timeout(Duration::from_secs(600));
    let subscription = house.builder().idempotent(strategy).handler(house.listing(stops));
    (house.start([subscription]).await, there)
}

/// One message, a process that dies, and another that comes after it. How many effects there are.
async fn crash(house: House, point: Point) -> usize {
    let (first, there) = doomed(&house, point).await;
    house.publish(first.publisher(), "a").await;
    there.acquire().await.unwrap().forget();
    drop(first);
    let subscription = house
        .guard_with(house.builder(), just_the_effect(), By::default(), |t| t.lease(LEASE))
        .await;
    let second = house.start([subscription]).await;
    let counts = counts_when(&[&second], |counts| ended(counts) == 1).await;
    assert_eq!((counts.dead_lettered, counts.retried), (0, 0), "{counts:?}");
    stop([second]).await;
    house.effects_of("a").await
}

/// S12
async fn a_crash_after_the_claim_loses_nothing(house: House) {
    // There is no such point in a transaction: the nearest one is within it.
    let point = if house.kind.is_transactional() { Point::InHandler } else { Point::Claimed };
    assert_eq!(crash(house, point).await, 1);
}

/// S12
async fn a_crash_in_the_handler_loses_nothing(house: House) {
    assert_eq!(crash(house, Point::InHandler).await, 1);
}

/// S12: exactly one effect in a transaction, and a second one elsewhere.
async fn a_crash_after_the_effect_loses_nothing(house: House) {
    let expected = if house.kind.is_transactional() { 1 } else { 2 };
    assert_eq!(crash(house, Point::AfterEffect).await, expected);
}

/// S12
async fn a_crash_after_done_repeats_nothing(house: House) {
    if house.kind.is_transactional() {
        // Committed, and the acknowledgement did not get out.
        let first = house.instance(just_the_effect()).await;
        house.publish(first.publisher(), "a").await;
        counts_when(&[&first], |counts| counts.succeeded == 1).await;
        house.publish(first.publisher(), "a").await;
        counts_when(&[&first], |counts| counts.duplicates.total() == 1).await;
        stop([first]).await;
        assert_eq!(house.effects_of("a").await, 1);
    } else {
        assert_eq!(crash(house, Point::Done).await, 1);
    }
}
