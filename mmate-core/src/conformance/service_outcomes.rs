//! A whole service on the transport: what becomes of messages that do not simply succeed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Harness;
use super::service::{Heard, RETRY_DELAY, publish, queue_of, start, stop, subscription};
use super::stage::{Stage, ack, eventually, send};
use crate::handler::{Attempt, Json};
use crate::message::{Message, Meta, Outgoing, wire};
use crate::outcome::{HandlerError, Outcome, Permanent};
use crate::service::Running;
use crate::subscription::RetryPolicy;
use crate::transport::Delivery;

/// Waits until so many messages were handled successfully.
async fn until_succeeded(running: &Running, count: u64) {
    eventually("the counting of a success", || async {
        running.stats().total().succeeded == count
    })
    .await;
}

async fn dead_letter<H: Harness>(stage: &Stage<'_, H>) -> Delivery {
    stage.dead_letters(&queue_of(stage)).await.next().await
}

fn assert_dead(delivery: &Delivery, reason: &str, attempts: i64, error: &str) {
    let headers = &delivery.message.headers;
    assert_eq!(headers.text(wire::REASON), Some(reason));
    assert_eq!(headers.int(wire::ATTEMPTS), Some(attempts));
    let told = headers.text(wire::ERROR).unwrap_or_default();
    assert!(told.contains(error), "{told:?} says {error:?}");
}

/// S9, S34: the same message, the next attempt.
pub async fn a_failed_message_is_tried_again_with_the_next_attempt<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let handler = move |Attempt(attempt): Attempt, meta: Meta| {
        let _ = say.send((attempt, meta.id));
        async move { if attempt < 3 { Err(HandlerError::retryable("not yet")) } else { Ok(()) } }
    };
    let running = start(&stage, "service", subscription(&stage, &["#"]).handler(handler)).await;
    publish(&stage, &running, "a", 1).await;
    let (first, id) = heard.next().await;
    assert_eq!(first, 1);
    assert_eq!(heard.next().await, (2, id.clone()));
    assert_eq!(heard.next().await, (3, id));
    until_succeeded(&running, 1).await;
    assert_eq!(running.stats().total().retried, 2);
    stop(running).await;
}

/// S11: a panic is a failure of one message, and not of the process.
pub async fn a_panicking_handler_is_tried_again_and_the_service_lives<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let handler = |Json(n): Json<u64>, Attempt(attempt): Attempt| async move {
        assert!(n != 1 || attempt > 1, "this is part of the test");
        Ok::<(), HandlerError>(())
    };
    let running = start(&stage, "service", subscription(&stage, &["#"]).handler(handler)).await;
    publish(&stage, &running, "a", 1).await;
    publish(&stage, &running, "a", 2).await;
    until_succeeded(&running, 2).await;
    assert_eq!(running.stats().total().retried, 1);
    stop(running).await;
}

/// S11: a handler that hangs is a failure too.
pub async fn a_handler_that_takes_too_long_is_tried_again<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let handler = |Attempt(attempt): Attempt| async move {
        if attempt == 1 {
            std::future::pending::<()>().await;
        }
        Ok::<(), HandlerError>(())
    };
    let limited = subscription(&stage, &["#"]).timeout(Duration::from_millis(100));
    let running = start(&stage, "service", limited.handler(handler)).await;
    publish(&stage, &running, "a", 1).await;
    until_succeeded(&running, 1).await;
    assert_eq!(running.stats().total().retried, 1);
    stop(running).await;
}

/// S3: a handler may put a message off.
pub async fn a_deferred_message_comes_back_as_the_same_attempt<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let ready = Arc::new(AtomicBool::new(false));
    let handler = move |Attempt(attempt): Attempt| {
        let _ = say.send(attempt);
        let now = ready.swap(true, Ordering::SeqCst);
        async move {
            let after = RETRY_DELAY;
            Ok::<_, HandlerError>(if now { Outcome::Done } else { Outcome::Defer { after } })
        }
    };
    let running = start(&stage, "service", subscription(&stage, &["#"]).handler(handler)).await;
    publish(&stage, &running, "a", 1).await;
    assert_eq!([heard.next().await, heard.next().await], [1, 1]);
    until_succeeded(&running, 1).await;
    assert_eq!(running.stats().total().deferred, 1);
    stop(running).await;
}

/// S10: no second attempt where none can help.
pub async fn a_permanent_error_is_dead_lettered_at_once<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let handler = || async { Err::<(), _>("no such sku").permanent() };
    let running = start(&stage, "service", subscription(&stage, &["#"]).handler(handler)).await;
    publish(&stage, &running, "a", 1).await;
    assert_dead(&dead_letter(&stage).await, "permanent", 1, "no such sku");
    let counts = running.stats().total();
    assert_eq!((counts.fetched, counts.dead_lettered), (1, 1));
    stop(running).await;
}

/// A message that never succeeds does not circle for ever.
pub async fn a_message_that_always_fails_is_dead_lettered_after_the_last_attempt<H: Harness>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let handler = || async { Err::<(), _>(HandlerError::retryable("the disk is full")) };
    let three = subscription(&stage, &["#"]).retry(RetryPolicy::fixed(RETRY_DELAY).max_attempts(3));
    let running = start(&stage, "service", three.handler(handler)).await;
    publish(&stage, &running, "a", 1).await;
    assert_dead(&dead_letter(&stage).await, "attempts-exhausted", 3, "the disk is full");
    let counts = running.stats().total();
    assert_eq!((counts.fetched, counts.retried, counts.dead_lettered), (3, 2, 1));
    stop(running).await;
}

/// A body that is no envelope, and a payload of another shape: the handler is not entered, and the
/// queue is not blocked.
pub async fn an_undecodable_body_is_dead_lettered<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let handler = |Json(_): Json<u64>| async { Ok::<(), HandlerError>(()) };
    let running = start(&stage, "service", subscription(&stage, &["#"]).handler(handler)).await;
    let mut dead_letters = stage.dead_letters(&queue_of(&stage)).await;

    stage.publish("a", "this is not JSON").await;
    let dead = dead_letters.next().await;
    assert_dead(&dead, "undecodable", 1, "envelope");
    assert_eq!(dead.message.body, "this is not JSON");
    ack(dead).await;

    let event = Outgoing::event(stage.name("a"), "Number", "seven");
    running.publisher().publish(event).await.expect("the event is published");
    assert_dead(&dead_letters.next().await, "undecodable", 1, "u64");
    publish(&stage, &running, "a", 7).await;
    until_succeeded(&running, 1).await;
    stop(running).await;
}

/// A message that says two things about who it is is handled as neither.
pub async fn ids_that_contradict_each_other_are_dead_lettered<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let handler = || async { Ok::<(), HandlerError>(()) };
    let running = start(&stage, "service", subscription(&stage, &["#"]).handler(handler)).await;
    let mut message = Message::new("{}");
    message.properties.message_id = Some("one".to_owned());
    message.headers.insert(wire::MESSAGE_ID, "two");
    send(&*stage.connection, stage.event("a"), message).await;
    assert_dead(&dead_letter(&stage).await, "malformed", 1, "\"two\"");
    stop(running).await;
}

/// S10: the way back from the dead letters is to send the message to its queue.
pub async fn a_dead_letter_that_is_sent_back_runs<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mended = Arc::new(AtomicBool::new(false));
    let handler = {
        let mended = Arc::clone(&mended);
        move |Json(_): Json<u64>| {
            let mended = mended.load(Ordering::SeqCst);
            async move { if mended { Ok(()) } else { Err("no such sku").permanent() } }
        }
    };
    let running = start(&stage, "service", subscription(&stage, &["#"]).handler(handler)).await;
    publish(&stage, &running, "a", 1).await;
    let mut dead = dead_letter(&stage).await;
    mended.store(true, Ordering::SeqCst);
    stage.put(&queue_of(&stage), std::mem::take(&mut dead.message)).await;
    ack(dead).await;
    until_succeeded(&running, 1).await;
    stop(running).await;
}

/// Others are acknowledged, and count for nothing.
pub async fn only_the_message_types_that_were_asked_for_are_handled<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let handler = move |meta: Meta| {
        let _ = say.send(meta.message_type.unwrap_or_default());
        async { Ok::<(), HandlerError>(()) }
    };
    let some = subscription(&stage, &["#"]).message_type("Order*").message_type("Paid");
    let running = start(&stage, "service", some.handler(handler)).await;
    for message_type in ["OrderCreated", "InvoiceCreated", "Paid", "Repaid", "Order"] {
        let event = Outgoing::event(stage.name("a"), message_type, &1);
        running.publisher().publish(event).await.expect("the event is published");
    }
    let mut types = [heard.next().await, heard.next().await, heard.next().await];
    types.sort();
    assert_eq!(types, ["Order", "OrderCreated", "Paid"]);
    eventually("the counting of what was filtered", || async {
        let counts = running.stats().total();
        (counts.filtered, counts.fetched, counts.succeeded) == (2, 3, 3)
    })
    .await;
    stop(running).await;
    stage.until_ready(&queue_of(&stage), 0).await;
}

/// The broker may let them through; the service does not, also after a delay.
pub async fn what_a_glob_does_not_match_is_not_handled<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let handler = move |Json(n): Json<u64>, Attempt(attempt): Attempt| {
        let _ = say.send((n, attempt));
        async move { if attempt == 1 { Err(HandlerError::retryable("once more")) } else { Ok(()) } }
    };
    let europe = subscription(&stage, &["order.eu-*"]).concurrency(1).handler(handler);
    let running = start(&stage, "service", europe).await;
    // Takes everything, so that nothing is unroutable on a broker that knows globs.
    stage.queue("all", &["#"]).await;
    for (n, topic) in [(1, "order.us-west"), (2, "order.eu-west"), (3, "order.europe")] {
        publish(&stage, &running, topic, n).await;
    }
    assert_eq!(heard.next().await, (2, 1));
    assert_eq!(heard.next().await, (2, 2));
    until_succeeded(&running, 1).await;
    assert_eq!(running.stats().total().fetched, 2);
    stop(running).await;
}
