//! Who gets a message, when several could.

use std::collections::HashSet;
use std::sync::Arc;

use super::Harness;
use super::stage::{Inbox, Stage, ack, declare, eventually, send, soon, text};
use crate::message::Message;
use crate::transport::{
    Connection, Destination, Publication, PublishError, QueueMode, QueuePlan, TransportErrorKind,
};

/// Load balancing: each message goes to one consumer, and nobody with room is left without.
pub async fn competing_consumers_split_the_messages<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let second = stage.connect().await;
    let mut one = Inbox::open(&*stage.connection, &queue, 1).await;
    let mut two = Inbox::open(&*second, &queue, 1).await;
    for n in 0..20 {
        stage.publish("a", &n.to_string()).await;
    }
    let mut seen = HashSet::new();
    for _ in 0..10 {
        // Both hold one at the same time, or this would wait for ever.
        for delivery in [one.next().await, two.next().await] {
            assert!(seen.insert(text(&delivery)), "one message goes to one consumer");
            ack(delivery).await;
        }
    }
    assert_eq!(seen.len(), 20);
}

/// A process that hangs keeps what it has begun, and nothing more.
pub async fn a_consumer_that_is_full_holds_nobody_up<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let second = stage.connect().await;
    let mut full = Inbox::open(&*stage.connection, &queue, 1).await;
    let mut free = Inbox::open(&*second, &queue, 1).await;
    stage.publish("a", "0").await;
    stage.publish("a", "0").await;
    let (kept, _) = (full.next().await, free.read().await);
    for n in 1..10 {
        stage.publish("a", &n.to_string()).await;
        assert_eq!(free.read().await, n.to_string());
    }
    ack(kept).await;
}

/// Publish and subscribe: services do not take each other's messages.
pub async fn each_queue_has_its_own_copy<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let billing = stage.queue("billing", &["order.#"]).await;
    let shipping = stage.queue("shipping", &["order.#"]).await;
    for n in 0..5 {
        stage.publish("order.created", &n.to_string()).await;
    }
    for queue in [&billing, &shipping] {
        stage.put(queue, Message::new("end")).await;
        let texts = stage.inbox(queue).await.read_until("end").await;
        assert_eq!(texts, ["0", "1", "2", "3", "4"]);
    }
}

/// Every process its own copy.
pub async fn each_instance_has_its_own_copy<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let second = stage.connect().await;
    let mut inboxes = Vec::new();
    for (connection, name) in [(&stage.connection, "one"), (&second, "two")] {
        let queue = stage.own_plan(name, &["cache.#"]);
        declare(&**connection, &queue).await;
        inboxes.push(Inbox::open(&**connection, &queue, 10).await);
    }
    stage.publish("cache.cleared", "now").await;
    for inbox in &mut inboxes {
        assert_eq!(inbox.read().await, "now");
    }
}

/// A process that is gone leaves nothing behind that fills up.
pub async fn a_queue_per_instance_ends_with_its_connection<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let instance = stage.connect().await;
    let queue = stage.own_plan("q", &["cache.#"]);
    declare(&*instance, &queue).await;
    let inbox = Inbox::open(&*instance, &queue, 10).await;
    stage.publish("cache.cleared", "now").await;
    soon("closing", instance.close()).await;
    drop(inbox);
    for to in [stage.event("cache.cleared"), Destination::Queue(queue.name)] {
        eventually("the end of the queue", || async {
            let publication = Publication::new(to.clone(), Message::new("later"));
            let published = stage.connection.publish(publication).await;
            matches!(published, Err(PublishError::Unroutable { .. }))
        })
        .await;
    }
}

/// Two processes that were given the same instance name are told so.
pub async fn a_queue_per_instance_is_locked_for_other_connections<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.own_plan("q", &["cache.#"]);
    declare(&*stage.connection, &queue).await;
    let second = stage.connect().await;
    let declared = soon("declaring", second.declare(&queue)).await;
    let error = declared.expect_err("another connection's queue cannot be declared");
    assert_eq!(error.kind(), TransportErrorKind::Locked, "{error}");
    let consumed = soon("starting to consume", second.consume(&queue, 1)).await.map(drop);
    let error = consumed.expect_err("another connection's queue cannot be consumed");
    assert_eq!(error.kind(), TransportErrorKind::Locked, "{error}");
}

/// First in, first out.
pub async fn one_consumer_gets_the_messages_in_order<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let sent: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    for text in &sent[..150] {
        stage.publish("a", text).await;
    }
    let mut inbox = Inbox::open(&*stage.connection, &queue, 7).await;
    for text in &sent[150..] {
        stage.publish("a", text).await;
    }
    stage.put(&queue, Message::new("end")).await;
    assert_eq!(inbox.read_until("end").await, sent);
}

/// Concurrent publishers of one connection do not get into each other's way.
pub async fn many_tasks_publish_and_each_message_arrives_once<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    let connection: Arc<dyn Connection> = Arc::from(stage.connect().await);
    let mut tasks = Vec::new();
    for task in 0..20 {
        let (connection, to) = (Arc::clone(&connection), stage.event("a"));
        tasks.push(tokio::spawn(async move {
            for n in 0..25 {
                send(&*connection, to.clone(), Message::new(format!("{task}/{n}"))).await;
            }
        }));
    }
    let mut seen = HashSet::new();
    for _ in 0..500 {
        assert!(seen.insert(inbox.read().await), "a message that was published once comes once");
    }
    for task in tasks {
        task.await.expect("every message is confirmed");
    }
    stage.put(&queue, Message::new("end")).await;
    assert_eq!(inbox.read_until("end").await, [""; 0], "nothing comes beside what was published");
}

/// A larger number: nothing is lost, doubled or held up.
pub async fn ten_thousand_messages_go_through<H: Harness>(harness: &H) {
    const COUNT: usize = 10_000;
    const TASKS: usize = 50;
    let stage = Stage::new(harness).await;
    let queue = QueuePlan::new(stage.name("q"), QueueMode::Shared);
    declare(&*stage.connection, &queue).await;
    let mut inbox = Inbox::open(&*stage.connection, &queue, 500).await;
    let connection: Arc<dyn Connection> = Arc::from(stage.connect().await);
    for task in 0..TASKS {
        let (connection, to) = (Arc::clone(&connection), Destination::Queue(queue.name.clone()));
        tokio::spawn(async move {
            for n in (task..COUNT).step_by(TASKS) {
                send(&*connection, to.clone(), Message::new(n.to_string())).await;
            }
        });
    }
    let mut seen = vec![false; COUNT];
    for _ in 0..COUNT {
        let number: usize = inbox.read().await.parse().expect("a body is as it was sent");
        assert!(!std::mem::replace(&mut seen[number], true), "message {number} came twice");
    }
    stage.until_ready(&queue, 0).await;
}
