//! Queues: made, checked, or left alone.

use std::time::Duration;

use super::Harness;
use super::stage::{Inbox, Stage, declare, eventually, send, soon};
use crate::message::{Message, wire};
use crate::transport::{
    Binding, Connection, Declare, Destination, Publication, PublishError, QueueKind, QueueMode,
    QueuePlan, TransportErrorKind,
};

async fn refused(connection: &dyn Connection, plan: &QueuePlan) -> TransportErrorKind {
    match soon("declaring", connection.declare(plan)).await {
        Ok(()) => panic!("declaring {plan:?} is refused"),
        Err(error) => error.kind(),
    }
}

/// Every instance of a service declares the same queues; a later version may add a pattern.
pub async fn declaring_twice_is_fine_and_bindings_add_up<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut queue = stage.queue("q", &["a"]).await;
    declare(&*stage.connection, &queue).await;
    let second = stage.connect().await;
    declare(&*second, &queue).await;
    queue.bindings = vec![Binding::new(wire::EVENTS, stage.pattern("b"))];
    declare(&*second, &queue).await;
    for topic in ["a", "b"] {
        stage.publish(topic, topic).await;
    }
    stage.put(&queue, Message::new("end")).await;
    assert_eq!(stage.inbox(&queue).await.read_until("end").await, ["a", "b"]);
}

/// A queue that is there and is another is not taken for the one that was meant.
pub async fn another_kind_is_a_mismatch<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut queue = stage.queue("q", &[]).await;
    queue.kind = QueueKind::Classic;
    assert_eq!(refused(&*stage.connection, &queue).await, TransportErrorKind::Mismatch);

    let mut queue = stage.plan("r", &[]);
    queue.kind = QueueKind::Classic;
    declare(&*stage.connection, &queue).await;
    queue.kind = QueueKind::Quorum;
    assert_eq!(refused(&*stage.connection, &queue).await, TransportErrorKind::Mismatch);
}

/// A queue that others were to make, and did not.
pub async fn a_queue_that_must_be_there_and_is_not_is_not_found<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut queue = stage.plan("missing", &["#"]);
    queue.declare = Declare::Passive;
    assert_eq!(refused(&*stage.connection, &queue).await, TransportErrorKind::NotFound);
    let consumed = soon("starting to consume", stage.connection.consume(&queue, 1)).await;
    let error = consumed.map(drop).expect_err("a missing queue cannot be consumed");
    assert_eq!(error.kind(), TransportErrorKind::NotFound, "{error}");
}

/// A queue of another make is used as it is when asked, and gets the bindings.
pub async fn a_queue_is_used_as_it_is_when_asked<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut theirs = stage.plan("q", &[]);
    theirs.kind = QueueKind::Classic;
    declare(&*stage.connection, &theirs).await;

    let mut ours = stage.plan("q", &["a"]);
    ours.declare = Declare::Passive;
    declare(&*stage.connection, &ours).await;
    stage.publish("a", "one").await;
    assert_eq!(stage.inbox(&ours).await.read().await, "one");
}

/// AMQP closes the channel on which a declaration fails; nobody else may notice.
pub async fn a_refused_declaration_leaves_the_connection_usable<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["a"]).await;
    let mut inbox = stage.inbox(&queue).await;
    stage.publish("a", "before").await;
    let before = inbox.next().await;

    let mut wrong = queue.clone();
    wrong.kind = QueueKind::Classic;
    assert_eq!(refused(&*stage.connection, &wrong).await, TransportErrorKind::Mismatch);
    let mut missing = stage.plan("missing", &[]);
    missing.declare = Declare::Passive;
    assert_eq!(refused(&*stage.connection, &missing).await, TransportErrorKind::NotFound);

    super::stage::ack(before).await;
    stage.publish("a", "after").await;
    assert_eq!(inbox.read().await, "after");
    stage.queue("r", &["b"]).await;
}

/// A durable queue keeps what comes while nobody is connected.
pub async fn messages_wait_for_their_consumer<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["a"]).await;
    soon("closing", stage.connection.close()).await;

    let publisher = stage.connect().await;
    for n in 0..3 {
        send(&*publisher, stage.event("a"), Message::new(n.to_string())).await;
    }
    soon("closing", publisher.close()).await;

    let consumer = stage.connect().await;
    stage.until_ready(&queue, 3).await;
    let mut inbox = Inbox::open(&*consumer, &queue, 10).await;
    for n in 0..3 {
        assert_eq!(inbox.read().await, n.to_string());
    }
}

/// A queue that nobody misses ends by itself, and not before.
pub async fn a_queue_that_expires_stays_while_it_is_consumed_and_ends_afterwards<H: Harness>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let expires = Duration::from_millis(500);
    let queue = QueuePlan::for_replies(stage.name("replies"), expires);
    declare(&*stage.connection, &queue).await;
    let mut inbox = stage.inbox(&queue).await;
    tokio::time::sleep(expires * 3).await;
    stage.put(&queue, Message::new("one")).await;
    assert_eq!(inbox.read().await, "one");
    soon("stopping", inbox.0.stop()).await;
    eventually("the end of the queue", || async {
        let publication =
            Publication::new(Destination::Queue(queue.name.clone()), Message::new("two"));
        matches!(stage.connection.publish(publication).await, Err(PublishError::Unroutable { .. }))
    })
    .await;
}

/// A process that is cut off for a while misses no reply.
pub async fn a_queue_for_replies_has_no_dead_letter_queue_and_keeps_what_comes_during_a_cut<
    H: Harness,
>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let queue = QueuePlan::for_replies(stage.name("replies"), Duration::from_secs(600));
    declare(&*stage.connection, &queue).await;
    let mut letters = QueuePlan::new(queue.dead_letter_queue(), QueueMode::Shared);
    letters.declare = Declare::Passive;
    let missing = soon("looking for a queue", stage.connection.declare(&letters)).await;
    let missing = missing.expect_err("there is no dead-letter queue");
    assert_eq!(missing.kind(), TransportErrorKind::NotFound);

    let mut inbox = stage.inbox(&queue).await;
    stage.put(&queue, Message::new("before")).await;
    let held = inbox.next().await;
    soon("the cut", harness.cut()).await;
    stage.put(&queue, Message::new("meanwhile")).await;
    drop(held);
    assert_eq!(inbox.read().await, "before");
    assert_eq!(inbox.read().await, "meanwhile");
}

/// Nothing is made, neither the bindings nor the dead-letter queue.
pub async fn verifying_makes_nothing_and_tells_what_is_missing<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut queue = stage.plan("q", &["a"]);
    queue.declare = Declare::Verify;
    assert_eq!(refused(&*stage.connection, &queue).await, TransportErrorKind::NotFound);
    let theirs = stage.queue("q", &["b"]).await;
    declare(&*stage.connection, &queue).await;

    let mut inbox = stage.inbox(&queue).await;
    let published = Publication::new(stage.event("a"), Message::new("unbound"));
    let unroutable = soon("publishing", stage.connection.publish(published)).await;
    assert!(matches!(unroutable, Err(PublishError::Unroutable { .. })), "no binding was made");
    stage.publish("b", "bound").await;
    assert_eq!(inbox.read().await, "bound");

    let mut without = stage.plan("x", &[]);
    without.name = theirs.dead_letter_queue();
    without.declare = Declare::Verify;
    assert_eq!(refused(&*stage.connection, &without).await, TransportErrorKind::NotFound);
}

/// The broker is asked when the queue is consumed, and not before.
pub async fn what_is_left_alone_is_neither_made_nor_asked_for<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut queue = stage.plan("q", &["a"]);
    queue.declare = Declare::LeaveAlone;
    declare(&*stage.connection, &queue).await;
    let consumed = soon("starting to consume", stage.connection.consume(&queue, 1)).await;
    let error = consumed.map(drop).expect_err("a missing queue cannot be consumed");
    assert_eq!(error.kind(), TransportErrorKind::NotFound, "{error}");

    let mut theirs = stage.plan("q", &["b"]);
    theirs.kind = QueueKind::Classic;
    declare(&*stage.connection, &theirs).await;
    stage.publish("b", "one").await;
    assert_eq!(stage.inbox(&queue).await.read().await, "one");
}
