//! Handlers that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mmate_core::{DeadLetters, HandlerError, Outcome, Running};
use tokio::sync::Semaphore;

use crate::house::{
    House, Phase, Script, counts_when, ended, everywhere, just_the_effect, script, stop,
};

everywhere! {
    a_retryable_error_gives_the_claim_back_and_the_next_attempt_runs,
    a_permanent_error_is_dead_lettered_and_not_done_so_a_replay_runs,
    a_replayed_letter_whose_id_is_done_is_suppressed,
    a_replayed_letter_whose_id_is_done_runs_as_new_when_asked,
    an_outcome_other_than_done_is_not_done_either,
    a_panic_gives_the_claim_back,
    a_timeout_gives_the_claim_back,
    a_dropped_handler_gives_the_claim_back_before_the_service_has_stopped,
}

/// Does something at the first visit before the effect, and nothing later.
fn first<F, Fut>(function: F) -> Script
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
{
    let came = Arc::new(AtomicBool::new(false));
    let function = Arc::new(function);
    script(move |visit| {
        let first = visit.phase == Phase::BeforeEffect && !came.swap(true, Ordering::SeqCst);
        let function = Arc::clone(&function);
        async move { if first { function().await } else { Ok(Outcome::Done) } }
    })
}

/// One message that fails once and then succeeds at the second attempt. It keeps its id, and is no
/// duplicate (S34).
async fn fails_once(house: House, script: Script) {
    let builder = house.builder().timeout(Duration::from_millis(500));
    let subscription = house.guard(builder, script).await;
    let running = house.start([subscription]).await;
    house.publish(running.publisher(), "a").await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 1).await;
    assert_eq!((counts.retried, counts.succeeded, counts.deferred), (1, 1, 0));
    assert_eq!(counts.duplicates.total(), 0);
    let effects = house.effects().await;
    assert_eq!(effects.len(), 1);
    assert_eq!((effects[0].id.as_str(), effects[0].attempt), ("a", 2));
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.duplicates.total() == 1).await;
    stop([running]).await;
}

/// S9, S34
async fn a_retryable_error_gives_the_claim_back_and_the_next_attempt_runs(house: House) {
    fails_once(house, first(async || Err(HandlerError::retryable("not now")))).await;
}

/// S11
async fn a_panic_gives_the_claim_back(house: House) {
    fails_once(house, first(async || panic!("as the test wants it"))).await;
}

/// S11
async fn a_timeout_gives_the_claim_back(house: House) {
    fails_once(house, first(std::future::pending)).await;
}

/// S10, S34: what was dead-lettered is not done, so its replay runs, under the same id and as no
/// duplicate.
async fn a_permanent_error_is_dead_lettered_and_not_done_so_a_replay_runs(house: House) {
    let running = house.instance(first(async || Err(HandlerError::permanent("never")))).await;
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.dead_lettered == 1).await;
    assert_eq!(house.effects_of("a").await, 0);

    let letters = DeadLetters::connect(&house.broker, house.queue()).await.unwrap();
    assert_eq!(letters.replay("a").await.unwrap(), 1);
    let counts = counts_when(&[&running], |counts| counts.succeeded == 1).await;
    assert_eq!(counts.duplicates.total(), 0);
    let effects = house.effects().await;
    assert_eq!(effects.len(), 1);
    assert_eq!((effects[0].id.as_str(), effects[0].attempt), ("a", 1));
    letters.close().await;
    stop([running]).await;
}

/// A dead letter whose id is done: its first copy died, and another copy was handled.
async fn dead_and_done(house: &House) -> (Running, DeadLetters) {
    let running = house.instance(first(async || Err(HandlerError::permanent("never")))).await;
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.dead_lettered == 1).await;
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.succeeded == 1).await;
    let letters = DeadLetters::connect(&house.broker, house.queue()).await.unwrap();
    (running, letters)
}

/// S10, S34
async fn a_replayed_letter_whose_id_is_done_is_suppressed(house: House) {
    let (running, letters) = dead_and_done(&house).await;
    assert_eq!(letters.replay("a").await.unwrap(), 1);
    let counts = counts_when(&[&running], |counts| counts.duplicates.total() == 1).await;
    assert_eq!((counts.succeeded, counts.conflicts), (1, 0));
    assert_eq!(house.effects_of("a").await, 1);
    assert!(letters.list(1).await.unwrap().is_empty());
    letters.close().await;
    stop([running]).await;
}

/// S10: unless the operator asks for it to run as new.
async fn a_replayed_letter_whose_id_is_done_runs_as_new_when_asked(house: House) {
    let (running, letters) = dead_and_done(&house).await;
    assert_eq!(letters.replay("a").as_new().await.unwrap(), 1);
    let counts = counts_when(&[&running], |counts| counts.succeeded == 2).await;
    assert_eq!(counts.duplicates.total(), 0);
    let effects = house.effects().await;
    assert_eq!((effects.len(), house.effects_of("a").await), (2, 1));
    letters.close().await;
    stop([running]).await;
}

async fn an_outcome_other_than_done_is_not_done_either(house: House) {
    let asked = [
        Outcome::Retry { after: Some(Duration::from_millis(10)) },
        Outcome::Defer { after: Duration::from_millis(10) },
        Outcome::dead_letter("as the test wants it"),
    ];
    let left = Arc::new(std::sync::Mutex::new(asked.to_vec()));
    let script = script(move |visit| {
        // After the effect: in a transaction it is rolled back.
        let asked = match visit.phase {
            Phase::BeforeEffect => None,
            Phase::AfterEffect => left.lock().unwrap().pop(),
        };
        async move { Ok(asked.unwrap_or(Outcome::Done)) }
    });
    let running = house.instance(script).await;
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.dead_lettered == 1).await;
    house.publish(running.publisher(), "a").await;
    let counts = counts_when(&[&running], |counts| counts.succeeded == 1).await;
    assert_eq!((counts.deferred, counts.retried, counts.duplicates.total()), (1, 1, 0));
    if house.kind.is_transactional() {
        assert_eq!(house.effects_of("a").await, 1);
    }
    stop([running]).await;
}

/// S9, S11: dropped by a drain that runs out of time.
async fn a_dropped_handler_gives_the_claim_back_before_the_service_has_stopped(house: House) {
    let entered = Arc::new(Semaphore::new(0));
    let hangs = {
        let entered = Arc::clone(&entered);
        script(move |_| {
            entered.add_permits(1);
            std::future::pending()
        })
    };
    let subscription = house.guard(house.builder(), hangs).await;
    let running = mmate_core::Service::new(house.service.as_str())
        .subscribe(subscription)
        .drain_timeout(Duration::from_millis(50))
        .start(house.broker.clone())
        .await
        .unwrap();
    house.publish(running.publisher(), "a").await;
    entered.acquire().await.unwrap().forget();
    running.stop().await.unwrap();

    let running = house.instance(just_the_effect()).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 1).await;
    assert_eq!((counts.succeeded, counts.deferred), (1, 0), "the claim was there no more");
    assert_eq!(house.effects().await.len(), 1);
    stop([running]).await;
}
