//! Stores that are away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mmate_idempotency::Tracked;
use tokio::time::sleep;

use crate::faulty::{Call, Faulty, When, down};
use crate::house::{House, cases, counts_when, ended, just_the_effect, stop, wherever_tracked};

wherever_tracked! {
    while_the_store_is_down_messages_are_held_back_and_nothing_is_lost,
    when_patience_ends_a_message_is_deferred_and_neither_run_nor_dead_lettered,
    a_claim_whose_answer_was_lost_is_recognised_as_its_own,
    a_strategy_that_fails_open_runs_and_counts_it,
}

cases!(
    transactional_on_sqlite,
    Transactional,
    Sqlite,
    in_process,
    while_somebody_else_holds_the_database_messages_are_held_back_and_nothing_is_lost
);

/// A store that is down while the switch says so, and how often it was called.
async fn switchable(house: &House) -> (Faulty, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (is_down, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let fault = {
        let (is_down, calls) = (Arc::clone(&is_down), Arc::clone(&calls));
        move |_: Call, when: When| {
            calls.fetch_add(usize::from(when == When::Before), Ordering::SeqCst);
            let fails = is_down.load(Ordering::SeqCst);
            Box::pin(async move { if fails { Err(down()) } else { Ok(()) } }) as _
        }
    };
    (Faulty { store: house.store().await, fault: Arc::new(fault) }, is_down, calls)
}

/// S42
async fn while_the_store_is_down_messages_are_held_back_and_nothing_is_lost(house: House) {
    let (store, is_down, calls) = switchable(&house).await;
    let builder = house.builder().concurrency(8);
    let handler = house.listing(just_the_effect());
    let running = house.start([builder.idempotent(Tracked::new(store)).handler(handler)]).await;
    for n in 0..40 {
        house.publish(running.publisher(), &format!("{n}")).await;
    }
    let counts = counts_when(&[&running], |counts| counts.in_flight == 8).await;
    assert_eq!(counts.fetched, 8, "consumption pauses by itself");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(running.stats().total(), counts, "and stays so");
    let status = running.health().report().status().to_string();
    assert!(status.starts_with("degraded: subscription "), "{status}");
    assert!(status.contains("fails, and messages are held back: "), "{status}");
    let calls = calls.load(Ordering::SeqCst);
    assert!(calls < 8 * 12, "{calls} calls in two seconds are a hot loop");
    is_down.store(false, Ordering::SeqCst);
    let counts = counts_when(&[&running], |counts| ended(counts) == 40).await;
    assert_eq!((counts.succeeded, counts.fetched), (40, 40));
    assert_eq!(house.effects().await.len(), 40);
    stop([running]).await;
}

/// S42
async fn when_patience_ends_a_message_is_deferred_and_neither_run_nor_dead_lettered(house: House) {
    let (store, is_down, _) = switchable(&house).await;
    let strategy = Tracked::new(store).outage_patience(Duration::from_millis(100));
    let handler = house.listing(just_the_effect());
    let running = house.start([house.builder().idempotent(strategy).handler(handler)]).await;
    house.publish(running.publisher(), "a").await;
    let counts = counts_when(&[&running], |counts| counts.deferred == 1).await;
    assert_eq!((counts.retried, ended(&counts)), (0, 0));
    assert_eq!(house.effects().await.len(), 0);
    is_down.store(false, Ordering::SeqCst);
    counts_when(&[&running], |counts| counts.succeeded == 1).await;
    stop([running]).await;
}

/// S45, F38
async fn a_claim_whose_answer_was_lost_is_recognised_as_its_own(house: House) {
    let lost = Arc::new(AtomicUsize::new(0));
    let fault = {
        let lost = Arc::clone(&lost);
        move |call: Call, when: When| {
            let cut = call == Call::Claim
                && when == When::After
                && lost.fetch_add(1, Ordering::SeqCst) < 3;
            Box::pin(async move { if cut { std::future::pending().await } else { Ok(()) } }) as _
        }
    };
    let store = Faulty { store: house.store().await, fault: Arc::new(fault) };
    let strategy = Tracked::new(store).answer_timeout(Duration::from_millis(300));
    let handler = house.listing(just_the_effect());
    let running = house.start([house.builder().idempotent(strategy).handler(handler)]).await;
    house.publish(running.publisher(), "a").await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 1).await;
    assert_eq!((counts.succeeded, counts.deferred), (1, 0));
    assert_eq!(lost.load(Ordering::SeqCst), 4);
    stop([running]).await;
}

/// S43
async fn a_strategy_that_fails_open_runs_and_counts_it(house: House) {
    let (store, is_down, _) = switchable(&house).await;
    let strategy = Tracked::new(store).fail_open();
    let handler = house.listing(just_the_effect());
    let running = house.start([house.builder().idempotent(strategy).handler(handler)]).await;
    for _ in 0..2 {
        house.publish(running.publisher(), "a").await;
    }
    let counts = counts_when(&[&running], |counts| counts.unprotected == 2).await;
    assert_eq!(counts.succeeded, 0);
    is_down.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        house.publish(running.publisher(), "a").await;
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 4).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 1));
    stop([running]).await;
}

/// S42, F44
async fn while_somebody_else_holds_the_database_messages_are_held_back_and_nothing_is_lost(
    house: House,
) {
    // A warm-up, so that the table is there.
    let running = house.instance(just_the_effect()).await;
    house.publish(running.publisher(), "warm").await;
    counts_when(&[&running], |counts| counts.succeeded == 1).await;

    let pool = house.sqlite().pool(1).await;
    let mut stuck = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("INSERT INTO effects VALUES ('stranger', 1)").execute(&mut *stuck).await.unwrap();
    for n in 0..20 {
        house.publish(running.publisher(), &format!("{n}")).await;
    }
    counts_when(&[&running], |counts| counts.in_flight == 16).await;
    // Longer than the busy timeout of the pool, so that there are errors to get over.
    sleep(Duration::from_secs(6)).await;
    let counts = running.stats().total();
    assert_eq!((counts.in_flight, counts.retried, counts.dead_lettered), (16, 0, 0));
    stuck.commit().await.unwrap();
    let counts = counts_when(&[&running], |counts| ended(counts) == 21).await;
    assert_eq!(counts.succeeded, 21);
    assert_eq!(house.effects().await.len(), 22);
    stop([running]).await;
}
