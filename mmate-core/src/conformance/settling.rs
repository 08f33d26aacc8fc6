//! What settling does, and not settling.

use std::time::Duration;

use super::Harness;
use super::stage::{Inbox, Stage, ack, settle, soon, text};
use crate::message::Message;
use crate::transport::Settlement;

/// An acknowledgement is for good.
pub async fn an_acknowledged_message_is_gone<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    stage.publish("a", "one").await;
    assert_eq!(stage.inbox(&queue).await.read().await, "one");
    soon("closing", stage.connection.close()).await;

    let second = stage.connect().await;
    let mut inbox = Inbox::open(&*second, &queue, 10).await;
    super::stage::send(&*second, stage.event("a"), Message::new("two")).await;
    assert_eq!(text(&inbox.next().await), "two");
}

/// S6, S49: also if the connection is closed at the very next moment, and whoever held the delivery
/// is gone by then.
pub async fn what_is_acknowledged_just_before_the_connection_closes_is_gone<H: Harness>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    for round in 0..40 {
        let message = Message::new(format!("{round}"));
        super::stage::send(&*stage.connection, stage.event("a"), message).await;
        let connection = stage.connect().await;
        let mut inbox = Inbox::open(&*connection, &queue, 10).await;
        let delivery = inbox.next().await;
        assert_eq!(text(&delivery), format!("{round}"), "those before were acknowledged");
        inbox.0.stop().await;
        drop(inbox);
        ack(delivery).await;
        soon("closing", connection.close()).await;
    }
    stage.until_ready(&queue, 0).await;
    stage.inbox(&queue).await.nothing_for(Duration::from_millis(100)).await;
}

/// S6: the broker keeps what was not settled, dropped deliveries included, and says that it showed
/// it before.
pub async fn an_unsettled_message_is_shown_again_when_its_connection_closes<H: Harness>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    stage.publish("a", "held").await;
    stage.publish("a", "dropped").await;
    let mut inbox = stage.inbox(&queue).await;
    let held = inbox.next().await;
    assert!(!held.redelivered, "a message that is shown for the first time is not redelivered");
    drop(inbox.next().await);
    soon("closing", stage.connection.close()).await;

    let second = stage.connect().await;
    let mut inbox = Inbox::open(&*second, &queue, 10).await;
    let mut texts = Vec::new();
    for delivery in inbox.take(2).await {
        assert!(delivery.redelivered, "a message that was shown before is redelivered");
        assert_eq!(delivery.failed_attempts, 0, "being shown again is no failed attempt");
        texts.push(text(&delivery));
        ack(delivery).await;
    }
    texts.sort();
    assert_eq!(texts, ["dropped", "held"]);
    assert!(held.settle(Settlement::Ack).await.is_lost(), "its connection is closed");
}

/// For a drain: no attempt, no delay.
pub async fn a_requeued_message_is_shown_again_at_once_and_counts_as_nothing<H: Harness>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    stage.publish("a", "one").await;
    settle(inbox.next().await, Settlement::Requeue).await;
    let again = inbox.next().await;
    assert_eq!(text(&again), "one");
    assert!(again.redelivered);
    assert_eq!((again.failed_attempts, again.deferrals), (0, 0));
    assert_eq!(again.routing_key, stage.name("a"));
    ack(again).await;
}

/// S50: acknowledging a later delivery does not cover an earlier one that is not finished.
pub async fn an_acknowledgement_covers_its_own_delivery_only<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    for n in 0..5 {
        stage.publish("a", &n.to_string()).await;
    }
    let mut inbox = stage.inbox(&queue).await;
    let taken = inbox.take(5).await;
    for delivery in taken {
        match &*text(&delivery) {
            "0" | "3" => drop(delivery),
            _ => ack(delivery).await,
        }
    }
    soon("closing", stage.connection.close()).await;

    let second = stage.connect().await;
    let mut inbox = Inbox::open(&*second, &queue, 10).await;
    let mut left = [inbox.read().await, inbox.read().await];
    left.sort();
    assert_eq!(left, ["0", "3"]);
    super::stage::send(&*second, stage.event("a"), Message::new("end")).await;
    assert_eq!(inbox.read_until("end").await, [""; 0]);
}

/// S8: what a process has not begun stays with the broker, for others.
pub async fn the_prefetch_bounds_what_is_unsettled<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    for n in 0..10 {
        stage.publish("a", &n.to_string()).await;
    }
    let mut inbox = Inbox::open(&*stage.connection, &queue, 3).await;
    let mut taken = inbox.take(3).await;
    stage.until_ready(&queue, 7).await;
    inbox.nothing_for(Duration::from_millis(150)).await;
    ack(taken.remove(1)).await;
    let next = inbox.next().await;
    assert_eq!(text(&next), "3");
    stage.until_ready(&queue, 6).await;
    inbox.nothing_for(Duration::from_millis(50)).await;
}

/// S49: a drain leaves what it has not begun to others, and finishes what it has.
pub async fn a_stopped_consumer_gives_back_what_it_has_not_returned<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    for n in 0..10 {
        stage.publish("a", &n.to_string()).await;
    }
    let mut inbox = Inbox::open(&*stage.connection, &queue, 10).await;
    let begun = inbox.take(2).await;
    stage.until_ready(&queue, 0).await;
    soon("stopping", inbox.0.stop()).await;
    inbox.ends().await;
    stage.until_ready(&queue, 8).await;
    for delivery in begun {
        ack(delivery).await;
    }

    let mut other = stage.inbox(&queue).await;
    let mut texts = Vec::new();
    for _ in 0..8 {
        texts.push(other.read().await);
    }
    texts.sort();
    assert_eq!(texts, ["2", "3", "4", "5", "6", "7", "8", "9"]);
    stage.publish("a", "end").await;
    assert_eq!(other.read_until("end").await, [""; 0]);
}

/// Stopping without anything to do, twice.
pub async fn a_consumer_may_be_stopped_twice_and_then_ends<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    soon("stopping", inbox.0.stop()).await;
    soon("stopping", inbox.0.stop()).await;
    inbox.ends().await;
    inbox.ends().await;
    stage.publish("a", "one").await;
    assert_eq!(stage.inbox(&queue).await.read().await, "one");
}

/// A service waits for a delivery beside other things, and gives the wait up when one of them
/// happens first.
pub async fn a_wait_that_is_given_up_loses_nothing<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let mut inbox = Inbox::open(&*stage.connection, &queue, 5).await;
    let mut texts = Vec::new();
    for n in 0..30 {
        stage.publish("a", &n.to_string()).await;
        for patience in [0, 1, 2] {
            let wait = Duration::from_millis(patience);
            if let Ok(next) = tokio::time::timeout(wait, inbox.0.next()).await {
                let delivery = next.expect("the consumer goes on").expect("the consumer is well");
                texts.push(text(&delivery));
                ack(delivery).await;
            }
        }
    }
    stage.put(&queue, Message::new("end")).await;
    texts.extend(inbox.read_until("end").await);
    assert_eq!(texts, (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
}
