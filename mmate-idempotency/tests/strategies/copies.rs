//! Copies of a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{HandlerError, Outcome};
use mmate_idempotency::{OnBusy, Tracked};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::effects::Probe;
use crate::faulty::Faulty;
use crate::house::{
    House, Phase, Script, counts_when, ended, everywhere, just_the_effect, script, stop,
    wherever_tracked,
};

everywhere! {
    sixty_four_copies_at_four_instances_have_one_effect,
    a_copy_of_what_is_done_is_acknowledged_and_not_even_decoded,
    a_copy_of_what_is_in_progress_becomes_a_duplicate_if_the_holder_succeeds,
    a_copy_of_what_is_in_progress_runs_if_the_holder_fails,
}

wherever_tracked! {
    with_pauses_between_all_calls_there_is_still_one_effect,
    a_copy_of_what_is_in_progress_is_deferred_and_counts_no_attempt,
    a_copy_may_wait_for_its_turn_instead,
    a_copy_may_be_dropped_instead,
}

/// S1
async fn sixty_four_copies_at_four_instances_have_one_effect(house: House) {
    let slowly = script(async |visit| {
        if visit.phase == Phase::BeforeEffect {
            sleep(Duration::from_millis(50)).await;
        }
        Ok(Outcome::Done)
    });
    let mut running = Vec::new();
    for _ in 0..4 {
        running.push(house.instance(Arc::clone(&slowly)).await);
    }
    for _ in 0..64 {
        house.publish(running[0].publisher(), "a").await;
    }
    let all: Vec<_> = running.iter().collect();
    let counts = counts_when(&all, |counts| ended(counts) == 64).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 63));
    assert_eq!(house.effects_of("a").await, 1);
    assert_eq!(house.inside.most("a"), 1);
    stop(running).await;
}

/// S2
async fn a_copy_of_what_is_done_is_acknowledged_and_not_even_decoded(house: House) {
    let text = house.service.clone();
    let running = house.instance(just_the_effect()).await;
    for n in 1..=3 {
        running.publisher().publish(house.message_with("a", &text)).await.unwrap();
        counts_when(&[&running], |counts| ended(counts) == n).await;
    }
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.republished), (1, 2));
    assert_eq!(Probe::decoded(&text), 1);
    assert_eq!(house.effects_of("a").await, 1);
    stop([running]).await;
}

/// S3
async fn a_copy_of_what_is_in_progress_becomes_a_duplicate_if_the_holder_succeeds(house: House) {
    let (entered, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let held = {
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
    let running = house.instance(held).await;
    house.publish(running.publisher(), "a").await;
    entered.acquire().await.unwrap().forget();
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.fetched >= 2).await;
    go_on.add_permits(1);
    let counts = counts_when(&[&running], |counts| ended(counts) == 2).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 1));
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0));
    assert_eq!(house.effects_of("a").await, 1);
    stop([running]).await;
}

/// S3
async fn a_copy_of_what_is_in_progress_runs_if_the_holder_fails(house: House) {
    let (entered, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let visits = Arc::new(AtomicUsize::new(0));
    let first_fails = {
        let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
        script(move |visit| {
            let first =
                visit.phase == Phase::BeforeEffect && visits.fetch_add(1, Ordering::SeqCst) == 0;
            let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
            async move {
                if first {
                    entered.add_permits(1);
                    go_on.acquire().await.unwrap().forget();
                    return Err(HandlerError::permanent("the first one fails"));
                }
                Ok(Outcome::Done)
            }
        })
    };
    let running = house.instance(first_fails).await;
    house.publish(running.publisher(), "a").await;
    entered.acquire().await.unwrap().forget();
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.fetched >= 2).await;
    go_on.add_permits(1);
    let counts = counts_when(&[&running], |counts| ended(counts) == 2).await;
    assert_eq!((counts.succeeded, counts.dead_lettered), (1, 1));
    assert_eq!(house.effects_of("a").await, 1);
    stop([running]).await;
}

/// S7
async fn with_pauses_between_all_calls_there_is_still_one_effect(house: House) {
    let mut running = Vec::new();
    for _ in 0..4 {
        let store = Faulty {
            store: house.store().await,
            fault: Arc::new(|_, _| {
                Box::pin(async {
                    sleep(Duration::from_millis(fastrand::u64(0..20))).await;
                    Ok(())
                })
            }),
        };
        let subscription = house
            .builder()
            .idempotent(Tracked::new(store))
            .handler(house.listing(just_the_effect()));
        running.push(house.start([subscription]).await);
    }
    for n in 0..64 {
        house.publish(running[0].publisher(), &format!("{}", n % 2)).await;
    }
    let all: Vec<_> = running.iter().collect();
    let counts = counts_when(&all, |counts| ended(counts) == 64).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (2, 62));
    for id in ["0", "1"] {
        assert_eq!((house.effects_of(id).await, house.inside.most(id)), (1, 1));
    }
    stop(running).await;
}

/// A handler that waits for a permit of the second semaphore, having told by the first that it is
/// there.
fn held_back() -> (Arc<Semaphore>, Arc<Semaphore>, Script) {
    let (entered, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let script = {
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
    (entered, go_on, script)
}

/// S3: it is shown again after a delay, without a hot loop.
async fn a_copy_of_what_is_in_progress_is_deferred_and_counts_no_attempt(house: House) {
    let (entered, go_on, script) = held_back();
    let running = house.instance(script).await;
    house.publish(running.publisher(), "a").await;
    entered.acquire().await.unwrap().forget();
    house.publish(running.publisher(), "a").await;
    let began = std::time::Instant::now();
    let counts = counts_when(&[&running], |counts| counts.deferred >= 2).await;
    assert!(began.elapsed() > Duration::from_millis(200), "the first delay is not that short");
    assert_eq!(counts.fetched, counts.deferred + 1);
    go_on.add_permits(1);
    let counts = counts_when(&[&running], |counts| ended(counts) == 2).await;
    assert_eq!((counts.succeeded, counts.duplicates.total(), counts.retried), (1, 1, 0));
    stop([running]).await;
}

/// S4
async fn a_copy_may_wait_for_its_turn_instead(house: House) {
    let (entered, go_on, script) = held_back();
    let strategy = Tracked::new(house.store().await).on_busy(OnBusy::Wait(Duration::from_secs(30)));
    let subscription = house.builder().idempotent(strategy).handler(house.listing(script));
    let running = house.start([subscription]).await;
    house.publish(running.publisher(), "a").await;
    entered.acquire().await.unwrap().forget();
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.in_flight == 2).await;
    go_on.add_permits(1);
    let counts = counts_when(&[&running], |counts| ended(counts) == 2).await;
    assert_eq!((counts.succeeded, counts.duplicates.total(), counts.deferred), (1, 1, 0));
    stop([running]).await;
}

/// S4: and it is not the default, as the case before the last shows.
async fn a_copy_may_be_dropped_instead(house: House) {
    let (entered, go_on, script) = held_back();
    let strategy = Tracked::new(house.store().await).on_busy(OnBusy::Drop);
    let subscription = house.builder().idempotent(strategy).handler(house.listing(script));
    let running = house.start([subscription]).await;
    house.publish(running.publisher(), "a").await;
    entered.acquire().await.unwrap().forget();
    house.publish(running.publisher(), "a").await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 1).await;
    assert_eq!((counts.duplicates.total(), counts.in_flight), (1, 1));
    go_on.add_permits(1);
    counts_when(&[&running], |counts| counts.succeeded == 1).await;
    stop([running]).await;
}
