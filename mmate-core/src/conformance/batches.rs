//! Handlers of batches on the transport.

use std::time::Duration;

use tokio::sync::mpsc;

use super::Harness;
use super::service::{publish, queue_of, start, stop, subscription};
use super::stage::{Stage, eventually, soon};
use crate::batch::{Batch, BatchOutcome, BatchPolicy};
use crate::message::Outgoing;
use crate::outcome::HandlerError;

/// One is done, one is retried, one is dead-lettered, one cannot be decoded: each on its own.
pub async fn a_batch_is_settled_message_by_message<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = mpsc::unbounded_channel();
    let handler = move |batch: Batch<u64>| {
        let mut outcome = BatchOutcome::done();
        for item in &batch {
            let _ = say.send((*item.value(), item.attempt()));
            match (item.value(), item.attempt()) {
                (1, 1) => outcome.fail(item, HandlerError::retryable("not yet")),
                (2, _) => outcome.fail(item, HandlerError::permanent("never")),
                _ => {}
            }
        }
        async move { Ok::<_, HandlerError>(outcome) }
    };
    let policy = BatchPolicy::up_to(3).within(Duration::from_millis(200));
    let batched = subscription(&stage, &["#"]).batch_handler(policy, handler);
    let running = start(&stage, "service", batched).await;
    let odd = Outgoing::event(stage.name("a"), "Number", "no number");
    soon("publishing", running.publisher().publish(odd)).await.expect("the event is published");
    for n in 0..3 {
        publish(&stage, &running, "a", n).await;
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(soon("a handling", heard.recv()).await.expect("the service runs"));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(0, 1), (1, 1), (1, 2), (2, 1)]);
    let letters = crate::message::wire::dead_letter_queue(&queue_of(&stage).name);
    eventually("two dead letters", || async { harness.ready(&letters).await == 2 }).await;
    let stats = running.stats().clone();
    stop(running).await;
    let counts = stats.total();
    assert_eq!((counts.fetched, counts.succeeded, counts.retried), (5, 2, 1));
    assert_eq!((counts.dead_lettered, counts.in_flight), (2, 0));
    stage.until_ready(&queue_of(&stage), 0).await;
}

/// S49: a stop does not wait for a batch to fill, and loses nothing of it.
pub async fn a_stop_handles_what_has_gathered<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let handler = async |_: Batch<u64>| Ok::<(), HandlerError>(());
    let policy = BatchPolicy::up_to(100).within(Duration::from_secs(3600));
    let batched = subscription(&stage, &["#"]).batch_handler(policy, handler);
    let running = start(&stage, "service", batched).await;
    for n in 0..10 {
        publish(&stage, &running, "a", n).await;
    }
    let stats = running.stats().clone();
    eventually("all are gathered", || async { stats.total().in_flight == 10 }).await;
    stop(running).await;
    assert_eq!((stats.total().succeeded, stats.total().settlements_lost), (10, 0));
    stage.until_ready(&queue_of(&stage), 0).await;
}
