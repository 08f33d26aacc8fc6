//! Requests to a handler that is guarded against duplicates.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mmate_core::{
    HandlerError, InProcess, Json, Outgoing, Reply, ReplyError, RequestError, Running, Service,
    Subscription,
};
use mmate_idempotency::{MemoryStore, Tracked};

/// Doubles small numbers, and counts its runs.
async fn start(broker: &InProcess, runs: &Arc<AtomicU64>) -> Running {
    let runs = Arc::clone(runs);
    let handler = move |Json(number): Json<u64>| {
        runs.fetch_add(1, Ordering::SeqCst);
        async move {
            match number {
                0..100 => Ok(Reply(number * 2)),
                _ => Err(HandlerError::from(ReplyError::new("too-large", "no"))),
            }
        }
    };
    let guarded = Subscription::queries("double", ["Double"])
        .idempotent(Tracked::new(MemoryStore::new()))
        .handler(handler);
    Service::new("math").subscribe(guarded).start(broker.clone()).await.unwrap()
}

/// S2, S52: the copy does not run, and whoever asked gets the first answer it waits for.
#[tokio::test(start_paused = true)]
async fn a_request_that_comes_twice_is_handled_once_and_answered_the_same() {
    let (broker, runs) = (InProcess::new(), Arc::default());
    let running = start(&broker, &runs).await;
    broker.duplicate_next(1);
    let answer: u64 = running.publisher().request(Outgoing::query("Double", &7)).await.unwrap();
    assert_eq!(answer, 14);
    broker.idle().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 1));
    // The copy's answer is the stored one, and nobody waits for it any more.
    assert_eq!(counts.replied, 2);
    running.stop().await.unwrap();
}

/// A failure that is an answer is final too: its copy is a duplicate, not another attempt.
#[tokio::test(start_paused = true)]
async fn a_failure_that_is_an_answer_is_recorded_as_done() {
    let (broker, runs) = (InProcess::new(), Arc::default());
    let running = start(&broker, &runs).await;
    broker.duplicate_next(1);
    let answer = running.publisher().request::<u64>(Outgoing::query("Double", &700)).await;
    assert!(matches!(answer, Err(RequestError::Failed(error)) if error.code == "too-large"));
    broker.idle().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    running.stop().await.unwrap();
}

/// S52
#[tokio::test(start_paused = true)]
async fn a_request_that_was_answered_before_is_answered_again_and_not_handled() {
    let (broker, runs) = (InProcess::new(), Arc::default());
    let running = start(&broker, &runs).await;
    let question = || Outgoing::query("Double", &7).id_text("the-question");
    for _ in 0..2 {
        let answer: u64 = running.publisher().request(question()).await.unwrap();
        assert_eq!(answer, 14);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(running.publisher().requests_waiting(), 0);
    running.stop().await.unwrap();
}
