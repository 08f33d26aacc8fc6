//! Leases, heartbeats, takeovers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{HandlerError, Outcome};
use mmate_idempotency::protocol::{Claim, Held, Time};
use mmate_idempotency::store::{ClaimRequest, Claimant, ManualClock, RecordKey};
use mmate_idempotency::{Key, Permit, Store, Tracked};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::faulty::{Call, Faulty, When, down};
use crate::house::{
    House, Phase, Script, counts_when, ended, just_the_effect, script, stop, wherever_tracked,
};

wherever_tracked! {
    nobody_takes_over_before_the_lease_ends_and_somebody_does_after,
    only_the_stores_clock_counts,
    a_handler_twenty_times_longer_than_its_lease_runs_once,
    a_handler_that_blocks_its_thread_keeps_its_lease,
    who_was_overtaken_is_cancelled_at_its_next_heartbeat,
    who_was_overtaken_and_succeeds_is_not_acknowledged,
    a_heartbeat_that_fails_for_a_moment_is_repeated,
    a_lease_that_cannot_be_prolonged_ends_the_handler,
    a_handler_knows_its_fence_and_it_rises,
    a_done_write_that_fails_for_a_moment_is_repeated,
    a_done_write_that_keeps_failing_is_never_acknowledged,
}

/// What another process would claim.
fn request<'a>(house: &House, lease: Duration) -> ClaimRequest<'a> {
    let key = RecordKey::new(format!("{}/q", house.service), "a").unwrap();
    ClaimRequest::new(key, Claimant { subscription: "q", ..Claimant::default() }, lease)
}

async fn claim(store: &Arc<dyn Store>, request: &ClaimRequest<'_>) -> Permit {
    match store.claim(request).await.unwrap() {
        Claim::Granted(grant) => Permit::new(request, grant),
        other => panic!("granted, not {other:?}"),
    }
}

/// S14
async fn nobody_takes_over_before_the_lease_ends_and_somebody_does_after(mut house: House) {
    const LEASE: Duration = Duration::from_secs(3600);
    let clock = house.clock();
    let store = house.store().await;
    store.migrate().await.unwrap();
    let died = claim(&store, &request(&house, LEASE)).await;

    let seen = Arc::new(std::sync::Mutex::new(None));
    let handler = {
        let seen = Arc::clone(&seen);
        move |permit: Permit| {
            *seen.lock().unwrap() = Some(permit);
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let running =
        house.start([house.builder().idempotent(house.tracked().await).handler(handler)]).await;
    house.publish(running.publisher(), "a").await;
    clock.advance(LEASE - Duration::from_millis(1));
    counts_when(&[&running], |counts| counts.deferred >= 2).await;
    assert!(seen.lock().unwrap().is_none());
    clock.advance(Duration::from_millis(1));
    let counts = counts_when(&[&running], |counts| counts.succeeded == 1).await;
    assert_eq!(counts.retried, 0);
    let permit = seen.lock().unwrap().take().unwrap();
    assert_eq!((permit.attempt(), permit.fence()), (2, died.fence() + 1));
    stop([running]).await;
}

/// S21: the store's clock is an hour before or behind that of the instances, and decides alone.
async fn only_the_stores_clock_counts(mut house: House) {
    const HOUR: Duration = Duration::from_secs(3600);
    let present = ManualClock::new().now();
    let behind = Time::from_millis(present.as_millis() - HOUR.as_millis() as u64);
    for (id, time) in [("ahead", present + HOUR), ("behind", behind)] {
        let clock = house.go_by(ManualClock::at(time));
        let store = house.store().await;
        store.migrate().await.unwrap();
        let key = RecordKey::new(format!("{}/q", house.service), id).unwrap();
        let request = ClaimRequest::new(key, Claimant::default(), LONG);
        claim(&store, &request).await;
        let running = house.instance(just_the_effect()).await;
        house.publish(running.publisher(), id).await;
        counts_when(&[&running], |counts| counts.deferred >= 1).await;
        assert_eq!(house.effects_of(id).await, 0, "{id}");
        clock.advance(LONG);
        counts_when(&[&running], |counts| counts.succeeded == 1).await;
        assert_eq!(house.effects_of(id).await, 1, "{id}");
        stop([running]).await;
    }
}

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(600);

/// Runs one message and a copy of it on two instances, with a short lease.
async fn once_on_two_instances(house: House, script: Script) {
    let mut running = Vec::new();
    for _ in 0..2 {
        let strategy = house.tracked().await.lease(SHORT);
        let handler = house.listing(Arc::clone(&script));
        running.push(house.start([house.builder().idempotent(strategy).handler(handler)]).await);
    }
    for _ in 0..2 {
        house.publish(running[0].publisher(), "a").await;
    }
    let all: Vec<_> = running.iter().collect();
    let counts = counts_when(&all, |counts| ended(counts) == 2).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 1));
    assert!(counts.deferred >= 1);
    assert_eq!((house.effects_of("a").await, house.inside.most("a")), (1, 1));
    stop(running).await;
}

/// S18
async fn a_handler_twenty_times_longer_than_its_lease_runs_once(house: House) {
    let long = script(async |visit| {
        if visit.phase == Phase::BeforeEffect {
            sleep(SHORT * 20).await;
        }
        Ok(Outcome::Done)
    });
    once_on_two_instances(house, long).await;
}

/// S18
async fn a_handler_that_blocks_its_thread_keeps_its_lease(house: House) {
    let blocks = script(async |visit| {
        if visit.phase == Phase::BeforeEffect {
            std::thread::sleep(SHORT * 3);
        }
        Ok(Outcome::Done)
    });
    once_on_two_instances(house, blocks).await;
}

/// Counts itself when it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// S19: a pause of the first one is the same to the store as a leap of its clock.
async fn who_was_overtaken_is_cancelled_at_its_next_heartbeat(mut house: House) {
    let clock = house.clock();
    let store = house.store().await;
    let (entered, dropped) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let hangs = {
        let (entered, dropped) = (Arc::clone(&entered), Arc::clone(&dropped));
        script(move |_| {
            let (entered, dropped) = (Arc::clone(&entered), Dropped(Arc::clone(&dropped)));
            async move {
                let _dropped = dropped;
                entered.add_permits(1);
                std::future::pending().await
            }
        })
    };
    let strategy = house.tracked().await.lease(Duration::from_secs(6));
    let subscription = house.builder().idempotent(strategy).handler(house.listing(hangs));
    let running = house.start([subscription]).await;
    house.publish(running.publisher(), "a").await;
    entered.acquire().await.unwrap().forget();

    clock.advance(Duration::from_secs(6));
    let mut request = request(&house, Duration::from_secs(6));
    request.owner = mmate_idempotency::protocol::Owner::generate();
    let second = claim(&store, &request).await;
    assert_eq!(store.complete(&second, None).await.unwrap(), Held::Yes);
    let counts = counts_when(&[&running], |counts| counts.deferred == 1).await;
    assert_eq!((counts.retried, counts.dead_lettered, counts.succeeded), (0, 0, 0));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    // It is shown again, and what the second one recorded still stands.
    let counts = counts_when(&[&running], |counts| ended(counts) == 1).await;
    assert_eq!(counts.duplicates.total(), 1);
    assert_eq!(house.effects_of("a").await, 0);
    stop([running]).await;
}

/// S19: its completion is refused.
async fn who_was_overtaken_and_succeeds_is_not_acknowledged(mut house: House) {
    let clock = house.clock();
    let store = house.store().await;
    let (entered, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let waits = {
        let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
        script(move |visit| {
            let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
            async move {
                if visit.phase == Phase::BeforeEffect {
                    entered.add_permits(1);
                    go_on.acquire().await.unwrap().forget();
                }
                Ok(Outcome::Done)
            }
        })
    };
    let running = house.instance(waits).await;
    house.publish(running.publisher(), "a").await;
    entered.acquire().await.unwrap().forget();
    clock.advance(Duration::from_secs(60));
    let second = claim(&store, &request(&house, Duration::from_secs(60))).await;
    go_on.add_permits(1);
    let counts = counts_when(&[&running], |counts| counts.deferred == 1).await;
    assert_eq!(counts.succeeded, 0);
    assert_eq!(store.complete(&second, None).await.unwrap(), Held::Yes, "it is untouched");
    counts_when(&[&running], |counts| counts.duplicates.total() == 1).await;
    stop([running]).await;
}

/// A strategy whose store has faults.
async fn faulty(
    house: &House,
    fault: impl Fn(Call, When) -> bool + Send + Sync + 'static,
) -> Tracked {
    let fault = move |call, when| {
        let fails = fault(call, when);
        Box::pin(async move { if fails { Err(down()) } else { Ok(()) } }) as _
    };
    Tracked::new(Faulty { store: house.store().await, fault: Arc::new(fault) })
}

/// S22
async fn a_heartbeat_that_fails_for_a_moment_is_repeated(house: House) {
    let beats = Arc::new(AtomicUsize::new(0));
    let strategy = {
        let beats = Arc::clone(&beats);
        // Two of three get lost: before the store saw them, or after.
        let fault = move |call, when| match (call, when) {
            (Call::Heartbeat, When::Before) => {
                beats.fetch_add(1, Ordering::SeqCst).is_multiple_of(3)
            }
            (Call::Heartbeat, When::After) => beats.load(Ordering::SeqCst) % 3 == 2,
            _ => false,
        };
        faulty(&house, fault).await.lease(SHORT * 2)
    };
    let long = script(async |visit| {
        if visit.phase == Phase::BeforeEffect {
            sleep(SHORT * 6).await;
        }
        Ok(Outcome::Done)
    });
    let subscription = house.builder().idempotent(strategy).handler(house.listing(long));
    let running = house.start([subscription]).await;
    house.publish(running.publisher(), "a").await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 1).await;
    assert_eq!((counts.succeeded, counts.fetched), (1, 1));
    assert!(beats.load(Ordering::SeqCst) >= 3);
    stop([running]).await;
}

/// S11: no claim outlives its lease.
async fn a_lease_that_cannot_be_prolonged_ends_the_handler(house: House) {
    let visits = Arc::new(AtomicUsize::new(0));
    let dropped = Arc::new(AtomicUsize::new(0));
    let first_hangs = {
        let dropped = Arc::clone(&dropped);
        script(move |visit| {
            let first =
                visit.phase == Phase::BeforeEffect && visits.fetch_add(1, Ordering::SeqCst) == 0;
            let dropped = first.then(|| Dropped(Arc::clone(&dropped)));
            async move {
                if dropped.is_some() {
                    std::future::pending::<()>().await;
                }
                Ok(Outcome::Done)
            }
        })
    };
    let strategy = faulty(&house, |call, _| call == Call::Heartbeat).await.lease(SHORT);
    let subscription = house.builder().idempotent(strategy).handler(house.listing(first_hangs));
    let running = house.start([subscription]).await;
    house.publish(running.publisher(), "a").await;
    let counts = counts_when(&[&running], |counts| counts.succeeded == 1).await;
    assert!(counts.deferred >= 1);
    assert_eq!(counts.retried, 0);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert_eq!(house.effects_of("a").await, 1);
    stop([running]).await;
}

/// S20
async fn a_handler_knows_its_fence_and_it_rises(house: House) {
    let fences = Arc::new(std::sync::Mutex::new(Vec::new()));
    let handler = {
        let fences = Arc::clone(&fences);
        move |permit: Permit| {
            let mut fences = fences.lock().unwrap();
            fences.push((permit.fence(), permit.attempt()));
            let failed = fences.len() < 3;
            async move { if failed { Err(HandlerError::retryable("again")) } else { Ok(()) } }
        }
    };
    let strategy = house.tracked().await.key(Key::correlation_and_type());
    let running = house.start([house.builder().idempotent(strategy).handler(handler)]).await;
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.succeeded == 1).await;
    let fences = fences.lock().unwrap().clone();
    assert_eq!(fences.iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(fences.is_sorted_by(|a, b| a.0 < b.0), "{fences:?}");
    stop([running]).await;
}

/// S15, S45: also when the answer got lost.
async fn a_done_write_that_fails_for_a_moment_is_repeated(house: House) {
    let writes = Arc::new(AtomicUsize::new(0));
    let strategy = {
        let writes = Arc::clone(&writes);
        let fault = move |call, when| match (call, when) {
            (Call::Complete, When::Before) => writes.fetch_add(1, Ordering::SeqCst) < 2,
            (Call::Complete, When::After) => writes.load(Ordering::SeqCst) < 4,
            _ => false,
        };
        faulty(&house, fault).await
    };
    let handler = house.listing(just_the_effect());
    let running = house.start([house.builder().idempotent(strategy).handler(handler)]).await;
    house.publish(running.publisher(), "a").await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 1).await;
    assert_eq!((counts.succeeded, counts.fetched), (1, 1));
    assert_eq!(writes.load(Ordering::SeqCst), 4);
    stop([running]).await;
}

/// S15
async fn a_done_write_that_keeps_failing_is_never_acknowledged(house: House) {
    let strategy = faulty(&house, |call, when| call == Call::Complete && when == When::Before)
        .await
        .lease(SHORT)
        .outage_patience(Duration::from_millis(200));
    let handler = house.listing(just_the_effect());
    let running = house.start([house.builder().idempotent(strategy).handler(handler)]).await;
    house.publish(running.publisher(), "a").await;
    let counts = counts_when(&[&running], |counts| counts.deferred >= 2).await;
    assert_eq!(ended(&counts), 0);
    assert_eq!(counts.retried, 0);
    stop([running]).await;

    // Another instance, whose writes arrive: at least once, and with an end.
    let second = house.instance(just_the_effect()).await;
    let counts = counts_when(&[&second], |counts| ended(counts) == 1).await;
    assert_eq!(counts.succeeded, 1);
    assert!(house.effects_of("a").await >= 2);
    stop([second]).await;
}
