//! When claims are taken, and what they hold.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use mmate_core::Outcome;
use mmate_idempotency::Tracked;
use mmate_idempotency::protocol::Claim;
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey};
use tokio::sync::{Barrier, Semaphore};

use crate::house::{House, Phase, cases, counts_when, everywhere, just_the_effect, script, stop};

everywhere! {
    claims_are_taken_when_work_begins_and_not_before,
}

cases!(with_a_pool, Tracked, Sqlite, in_process, a_pool_of_two_serves_fifty_handlers_at_once);
cases!(
    with_a_pool_of_postgres,
    Tracked,
    Postgres,
    in_process,
    a_pool_of_two_serves_fifty_handlers_at_once
);

/// S8: what was fetched and not begun runs elsewhere at once.
async fn claims_are_taken_when_work_begins_and_not_before(house: House) {
    let entered = Arc::new(Semaphore::new(0));
    let hangs = {
        let entered = Arc::clone(&entered);
        script(move |_| {
            entered.add_permits(1);
            std::future::pending()
        })
    };
    let builder = || house.builder().prefetch(NonZeroU16::new(200).unwrap()).concurrency(4);
    let first = house.start([house.guard(builder(), hangs).await]).await;
    for n in 0..200 {
        house.publish(first.publisher(), &format!("{n}")).await;
    }
    // In a transaction of SQLite there is one at a time.
    let at_once = if house.kind.has_one_writer() { 1 } else { 4 };
    entered.acquire_many(at_once).await.unwrap().forget();

    let store = house.store().await;
    let mut claimed = 0;
    for n in 0..if house.kind.is_transactional() { 0 } else { 200 } {
        let key = RecordKey::new(format!("{}/q", house.service), format!("{n}")).unwrap();
        let request = ClaimRequest::new(key, Claimant::default(), Duration::ZERO);
        claimed += usize::from(matches!(store.claim(&request).await.unwrap(), Claim::Busy { .. }));
    }
    assert!(claimed <= 4, "{claimed} claims");
    drop(first);
    let second = house.instance(just_the_effect()).await;
    let counts = counts_when(&[&second], |counts| counts.succeeded >= 196).await;
    assert_eq!(counts.duplicates.total(), 0);
    stop([second]).await;
}

/// S30
async fn a_pool_of_two_serves_fifty_handlers_at_once(house: House) {
    let barrier = Arc::new(Barrier::new(50));
    let together = script(move |visit| {
        let barrier = Arc::clone(&barrier);
        async move {
            if visit.phase == Phase::BeforeEffect {
                barrier.wait().await;
            }
            Ok(Outcome::Done)
        }
    });
    let strategy = Tracked::new(house.database().store_on_pool(2).await);
    let builder = house.builder().concurrency(50);
    let subscription = builder.idempotent(strategy).handler(house.listing(together));
    let running = house.start([subscription]).await;
    for n in 0..50 {
        house.publish(running.publisher(), &format!("{n}")).await;
    }
    counts_when(&[&running], |counts| counts.succeeded == 50).await;
    stop([running]).await;
}
