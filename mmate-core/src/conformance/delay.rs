//! Retries and deferrals: messages that are shown again later.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::Harness;
use super::stage::{Inbox, Stage, ack, declare, settle, soon, text};
use crate::message::{Message, wire};
use crate::transport::{Delivery, QueueMode, QueuePlan, Settlement};

const DELAY: Duration = Duration::from_millis(200);
/// Clocks of two parties tick at different moments.
const TOLERANCE: Duration = Duration::from_millis(5);

fn retry(after: Duration) -> Settlement {
    Settlement::Retry { after, error: "the disk is full".to_owned() }
}

fn defer(after: Duration) -> Settlement {
    Settlement::Defer { after }
}

/// Publishes one message, and returns it as a delivery.
async fn one<H: Harness>(stage: &Stage<'_, H>, inbox: &mut Inbox) -> Delivery {
    stage.publish("order.created", "one").await;
    inbox.next().await
}

/// The delay is kept, and it is the broker that keeps it.
pub async fn a_retried_message_comes_back_after_its_delay_and_not_before<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    let first = one(&stage, &mut inbox).await;
    let settled_at = Instant::now();
    settle(first, retry(DELAY)).await;
    let again = inbox.next().await;
    let waited = settled_at.elapsed();
    assert!(waited + TOLERANCE >= DELAY, "it came after {waited:?}, its delay is {DELAY:?}");
    assert_eq!((again.failed_attempts, again.deferrals), (1, 0));
    ack(again).await;
}

/// S34: a retry is no new message: id, headers, body, exchange and topic are kept.
pub async fn a_retried_message_is_the_same_message<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.#"]).await;
    let mut message = Message::new("one");
    message.properties.message_id = Some("the-id".to_owned());
    message.properties.correlation_id = Some("the-conversation".to_owned());
    message.properties.message_type = Some("OrderCreated".to_owned());
    message.headers.insert("tenant", "acme");
    message.headers.insert("priority", 5_i64);
    super::stage::send(&*stage.connection, stage.event("order.created"), message.clone()).await;
    let mut inbox = stage.inbox(&queue).await;
    for settlement in [retry(DELAY), defer(DELAY)] {
        settle(inbox.next().await, settlement).await;
    }
    let again = inbox.next().await;
    assert_eq!(again.message.body, message.body);
    assert_eq!(again.message.properties.message_id, message.properties.message_id);
    assert_eq!(again.message.properties.correlation_id, message.properties.correlation_id);
    assert_eq!(again.message.properties.message_type, message.properties.message_type);
    for (name, value) in &message.headers {
        assert_eq!(again.message.headers.value(name), Some(value), "the header {name}");
    }
    assert_eq!(again.queue, queue.name);
    assert_eq!(again.exchange, wire::EVENTS);
    assert_eq!(again.routing_key, stage.name("order.created"));
    ack(again).await;
}

/// Attempts are counted in the message: they survive the process that made them.
pub async fn attempts_add_up_and_the_first_failure_is_remembered<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    let mut delivery = one(&stage, &mut inbox).await;
    let mut first_failures = Vec::new();
    for failed in 1..=3 {
        settle(delivery, retry(Duration::from_millis(100))).await;
        delivery = inbox.next().await;
        assert_eq!(delivery.failed_attempts, failed);
        let headers = &delivery.message.headers;
        assert_eq!(headers.int(wire::ATTEMPTS), Some(failed.into()));
        assert_eq!(headers.text(wire::ERROR), Some("the disk is full"));
        let first = headers.text(wire::FIRST_FAILED_AT).expect("the first failure has a time");
        first_failures.push(first.to_owned());
    }
    ack(delivery).await;
    first_failures.dedup();
    let [first] = &*first_failures else { panic!("one first failure, and not {first_failures:?}") };
    let first: jiff::Timestamp = first.parse().expect("the first failure's time is RFC 3339");
    let age = SystemTime::now().duration_since(first.into()).unwrap_or_default();
    assert!(age < Duration::from_secs(120), "the first failure was {age:?} ago");
}

/// S3: a deferral is no failed attempt, and forgets none.
pub async fn a_deferral_counts_no_attempt<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    let mut delivery = one(&stage, &mut inbox).await;
    let short = Duration::from_millis(100);
    for (settlement, counts) in [
        (defer(short), (0, 1)),
        (defer(short), (0, 2)),
        (retry(short), (1, 2)),
        (defer(short), (1, 3)),
    ] {
        let settled_at = Instant::now();
        settle(delivery, settlement).await;
        delivery = inbox.next().await;
        let waited = settled_at.elapsed();
        assert!(waited + TOLERANCE >= short, "it came after {waited:?}, its delay is {short:?}");
        assert_eq!((delivery.failed_attempts, delivery.deferrals), counts);
    }
    ack(delivery).await;
}

/// A policy without a delay is allowed.
pub async fn a_retry_without_a_delay_comes_back<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    settle(one(&stage, &mut inbox).await, retry(Duration::ZERO)).await;
    let again = inbox.next().await;
    assert_eq!(again.failed_attempts, 1);
    settle(again, defer(Duration::ZERO)).await;
    let again = inbox.next().await;
    assert_eq!((again.failed_attempts, again.deferrals), (1, 1));
    ack(again).await;
}

/// On RabbitMQ, messages with a time to live of their own wait for the one at the head of their
/// queue. Delays must not be made of that.
pub async fn a_short_delay_does_not_wait_for_a_long_one<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    stage.publish("a", "long").await;
    stage.publish("a", "short").await;
    let mut inbox = stage.inbox(&queue).await;
    settle(inbox.next().await, retry(Duration::from_secs(600))).await;
    settle(inbox.next().await, retry(DELAY)).await;
    assert_eq!(inbox.read().await, "short");
}

/// A message that waits for its next attempt takes no place of the prefetch.
pub async fn a_delayed_message_makes_room_for_the_next<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    stage.publish("a", "one").await;
    stage.publish("a", "two").await;
    let mut inbox = Inbox::open(&*stage.connection, &queue, 1).await;
    let first = inbox.next().await;
    assert_eq!(text(&first), "one");
    settle(first, retry(DELAY)).await;
    assert_eq!(inbox.read().await, "two");
    assert_eq!(inbox.read().await, "one");
}

/// Others that are bound to the same topics are not shown it again.
pub async fn a_delayed_message_comes_back_to_its_own_queue_only<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.#"]).await;
    let other = stage.queue("other", &["order.#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    for settlement in [retry(DELAY), defer(DELAY)] {
        let delivery = one(&stage, &mut inbox).await;
        settle(delivery, settlement).await;
        assert_eq!(inbox.read().await, "one");
    }
    stage.put(&other, Message::new("end")).await;
    assert_eq!(stage.inbox(&other).await.read_until("end").await, ["one", "one"]);
}

/// The delay is the broker's: the process may end meanwhile.
pub async fn a_delayed_message_outlives_its_connection<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    settle(one(&stage, &mut inbox).await, retry(DELAY)).await;
    soon("closing", stage.connection.close()).await;

    let second = stage.connect().await;
    let delivery = Inbox::open(&*second, &queue, 1).await.next().await;
    assert_eq!((&*text(&delivery), delivery.failed_attempts), ("one", 1));
}

/// A queue per instance is no worse than others while its connection lives.
pub async fn a_queue_per_instance_delays_too<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.own_plan("q", &["order.#"]);
    declare(&*stage.connection, &queue).await;
    let mut inbox = stage.inbox(&queue).await;
    let settled_at = Instant::now();
    settle(one(&stage, &mut inbox).await, retry(DELAY)).await;
    let again = inbox.next().await;
    let waited = settled_at.elapsed();
    assert!(waited + TOLERANCE >= DELAY, "it came after {waited:?}, its delay is {DELAY:?}");
    assert_eq!((&*text(&again), again.failed_attempts), ("one", 1));
    ack(again).await;
}

/// A message that expires after that time.
fn expiring(text: &str, after: Duration) -> Message {
    let mut message = Message::new(text.to_owned());
    message.properties.expires_after = Some(after);
    message
}

/// Also if nobody consumes its queue.
pub async fn a_message_that_waits_too_long_is_not_shown_but_dead_lettered<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &[]).await;
    stage.put(&queue, expiring("late", DELAY)).await;
    stage.put(&queue, expiring("early", Duration::from_secs(600))).await;
    stage.put(&queue, Message::new("timeless")).await;
    let letters = QueuePlan::new(queue.dead_letter_queue(), QueueMode::Shared);
    stage.until_ready(&letters, 1).await;
    let mut inbox = stage.inbox(&queue).await;
    assert_eq!([inbox.read().await, inbox.read().await], ["early", "timeless"]);
    assert_eq!(stage.dead_letters(&queue).await.read().await, "late");
}

/// Its waiting was over when it was shown.
pub async fn a_message_that_was_shown_in_time_does_not_expire_while_it_is_delayed<H: Harness>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &[]).await;
    let mut inbox = stage.inbox(&queue).await;
    let soon_gone = Duration::from_secs(5);
    stage.put(&queue, expiring("one", soon_gone)).await;
    settle(inbox.next().await, retry(soon_gone + DELAY)).await;
    let again = inbox.next().await;
    assert_eq!((&*text(&again), again.failed_attempts), ("one", 1));
    assert_eq!(again.message.properties.expires_after, None);
    ack(again).await;
}
