//! Messages that are published for later, and those that are more urgent than others.

use std::time::Duration;

use tokio::time::Instant;

use super::Harness;
use super::stage::{Inbox, Stage, ack, declare, send, soon, text};
use crate::message::{InvalidMessage, Message};
use crate::transport::{Destination, Publication, PublishError, QueueKind};

const DELAY: Duration = Duration::from_millis(700);
/// Clocks of two parties tick at different moments.
const TOLERANCE: Duration = Duration::from_millis(5);

fn later(to: Destination, body: &str) -> Publication {
    let mut message = Message::new(body.to_owned());
    message.properties.message_id = Some("the-id".to_owned());
    message.headers.insert("tenant", "acme");
    Publication::new(to, message).delay(DELAY)
}

async fn publish<H: Harness>(stage: &Stage<'_, H>, publication: Publication) {
    let published = soon("publishing", stage.connection.publish(publication)).await;
    published.expect("the message is published");
}

/// S34: with its id, its headers and its topic.
pub async fn a_delayed_event_reaches_every_queue_once_and_not_before<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queues = [
        stage.queue("one", &["order.*"]).await,
        stage.queue("two", &["order.#", "*.created"]).await,
        stage.queue("other", &["invoice.#"]).await,
    ];
    let published_at = Instant::now();
    publish(&stage, later(stage.event("order.created"), "late")).await;
    stage.publish("order.created", "prompt").await;
    for queue in &queues[..2] {
        let mut inbox = stage.inbox(queue).await;
        assert_eq!(inbox.read().await, "prompt");
        let delivery = inbox.next().await;
        let waited = published_at.elapsed();
        assert!(waited + TOLERANCE >= DELAY, "it came after {waited:?}, its delay is {DELAY:?}");
        assert_eq!(text(&delivery), "late");
        assert_eq!(delivery.routing_key, stage.topic("order.created").as_str());
        assert_eq!(delivery.exchange, crate::message::wire::EVENTS);
        assert_eq!((delivery.failed_attempts, delivery.deferrals), (0, 0));
        let message = &delivery.message;
        assert_eq!(message.properties.message_id.as_deref(), Some("the-id"));
        assert_eq!(message.properties.expires_after, None);
        assert_eq!(message.headers.text("tenant"), Some("acme"));
        ack(delivery).await;
    }
    for queue in &queues {
        stage.put(queue, Message::new("end")).await;
        let rest = stage.inbox(queue).await.read_until("end").await;
        assert_eq!(rest, [""; 0], "{} has nothing else", queue.name);
    }
}

/// It is routed at the end of its delay.
pub async fn a_delayed_event_reaches_a_queue_that_is_bound_meanwhile<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    publish(&stage, later(stage.event("order.created"), "late")).await;
    let queue = stage.queue("q", &["order.*"]).await;
    assert_eq!(stage.inbox(&queue).await.read().await, "late");
}

/// Also a consumer that waits already.
pub async fn a_delayed_message_reaches_a_queue_by_its_name<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &[]).await;
    let mut inbox = stage.inbox(&queue).await;
    let published_at = Instant::now();
    let to = || Destination::Queue(queue.name.clone());
    publish(&stage, later(to(), "late")).await;
    stage.put(&queue, Message::new("prompt")).await;
    assert_eq!(inbox.read().await, "prompt");
    let delivery = inbox.next().await;
    let waited = published_at.elapsed();
    assert!(waited + TOLERANCE >= DELAY, "it came after {waited:?}, its delay is {DELAY:?}");
    assert_eq!(text(&delivery), "late");
    assert_eq!((&*delivery.exchange, &*delivery.routing_key), ("", &*queue.name));
    assert_eq!(delivery.message.properties.message_id.as_deref(), Some("the-id"));
    ack(delivery).await;
    stage.put(&queue, Message::new("end")).await;
    assert_eq!(inbox.read_until("end").await, [""; 0]);
}

/// The broker keeps it.
pub async fn what_is_published_for_later_outlives_its_connection<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.*"]).await;
    publish(&stage, later(stage.event("order.created"), "event")).await;
    publish(&stage, later(Destination::Queue(queue.name.clone()), "command")).await;
    soon("closing", stage.connection.close()).await;
    let second = stage.connect().await;
    let mut inbox = Inbox::open(&*second, &queue, 10).await;
    let mut came = [inbox.read().await, inbox.read().await];
    came.sort_unstable();
    assert_eq!(came, ["command", "event"]);
}

/// As many as a broker may hold back because of them, and others behind them.
pub async fn delayed_events_that_nobody_takes_hold_up_no_others<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.*"]).await;
    for _ in 0..100 {
        publish(&stage, later(stage.event("nobody"), "lost")).await;
    }
    publish(&stage, later(stage.event("order.created"), "late")).await;
    assert_eq!(stage.inbox(&queue).await.read().await, "late");
}

/// At the end of the delay nobody could be told.
pub async fn a_message_that_cannot_be_delayed_is_refused_at_once<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let refused = async |publication| {
        let published = soon("publishing", stage.connection.publish(publication)).await;
        published.expect_err("the message cannot be delayed")
    };
    let nowhere = Destination::Queue(stage.name("nowhere"));
    let error = refused(later(nowhere, "lost")).await;
    assert!(matches!(error, PublishError::Unroutable { .. }), "{error:?}");

    let own = stage.own_plan("own", &["#"]);
    declare(&*stage.connection, &own).await;
    let error = refused(later(Destination::Queue(own.name.clone()), "lost")).await;
    assert!(matches!(error, PublishError::Refused { .. }), "{error:?}");

    let mut both = later(stage.event("order.created"), "both");
    both.message.properties.expires_after = Some(DELAY);
    let error = refused(both).await;
    let PublishError::Invalid(InvalidMessage::DelayedAndExpiring) = error else {
        panic!("it may not expire, too: {error:?}")
    };
}

/// In the order of their places where they are as urgent; one above the highest counts as that.
pub async fn a_queue_with_priorities_shows_the_most_urgent_first<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut queue = stage.plan("q", &[]);
    queue.kind = QueueKind::Classic;
    queue.max_priority = Some(5);
    declare(&*stage.connection, &queue).await;
    declare(&*stage.connection, &queue).await;
    let priorities = [None, Some(1), Some(9), Some(0), Some(5), Some(1)];
    for (number, priority) in priorities.into_iter().enumerate() {
        let mut message = Message::new(number.to_string());
        message.properties.priority = priority;
        let to = Destination::Queue(queue.name.clone());
        send(&*stage.connection, to, message).await;
    }
    stage.until_ready(&queue, priorities.len()).await;
    let mut inbox = Inbox::open(&*stage.connection, &queue, 1).await;
    let mut shown = Vec::new();
    for _ in priorities {
        let delivery = inbox.next().await;
        shown.push((text(&delivery), delivery.message.properties.priority));
        ack(delivery).await;
    }
    let order = [(2, Some(9)), (4, Some(5)), (1, Some(1)), (5, Some(1)), (0, None), (3, Some(0))];
    assert_eq!(shown, order.map(|(number, priority)| (number.to_string(), priority)));
}
