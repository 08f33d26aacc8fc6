//! What keeps messages in order: one consumer at a time, and lanes.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Harness;
use super::disorder;
use super::service::{publish, queue_of, start, stop, subscription};
use super::stage::{Inbox, Stage, ack, declare, soon, text};
use crate::handler::{Attempt, Json};
use crate::message::Meta;
use crate::outcome::HandlerError;
use crate::subscription::{OrderKey, Subscription, SubscriptionBuilder};
use crate::transport::{QueueMode, QueuePlan, TransportErrorKind};

async fn single<H: Harness>(stage: &Stage<'_, H>) -> QueuePlan {
    let mut plan = stage.plan("q", &["#"]);
    plan.single_active_consumer = true;
    declare(&*stage.connection, &plan).await;
    plan
}

/// The second consumer is there for when the first is gone.
pub async fn one_consumer_is_served_and_the_next_when_it_is_gone<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let plan = single(&stage).await;
    let (first, second) = (stage.connect().await, stage.connect().await);
    let mut one = Inbox::open(&*first, &plan, 3).await;
    let mut two = Inbox::open(&*second, &plan, 3).await;
    for n in 0..10 {
        stage.publish("a", &n.to_string()).await;
    }
    let mut taken = one.take(3).await;
    // There are seven more, and the second has room for three.
    two.nothing_for(Duration::from_millis(300)).await;
    ack(taken.remove(0)).await;
    soon("closing", first.close()).await;
    drop(taken);
    for n in 1..10 {
        assert_eq!(two.read().await, n.to_string(), "the rest, in its order");
    }
}

/// What was held goes back before a neighbour is given what is behind it.
pub async fn a_consumer_that_leaves_gives_back_all_it_had_in_its_order<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let plan = single(&stage).await;
    let second = stage.connect().await;
    let mut one = Inbox::open(&*stage.connection, &plan, 5).await;
    let mut two = Inbox::open(&*second, &plan, 100).await;
    for n in 0..20 {
        stage.publish("a", &n.to_string()).await;
    }
    let mut taken = one.take(3).await;
    // From the middle, as one of three lanes would.
    let acked = taken.remove(1);
    assert_eq!(text(&acked), "1");
    ack(acked).await;
    soon("leaving", one.0.leave()).await;
    one.ends().await;
    for n in (0..20).filter(|n| *n != 1) {
        assert_eq!(two.read().await, n.to_string());
    }
    for delivery in taken {
        assert!(delivery.is_lost(), "what was given back is not ours any more");
    }
}

/// An old queue does not pass for one that keeps order.
pub async fn a_queue_without_a_single_active_consumer_is_a_mismatch<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut plan = stage.queue("q", &["#"]).await;
    plan.single_active_consumer = true;
    let declared = soon("declaring", stage.connection.declare(&plan)).await;
    let error = declared.expect_err("the queue is there without it");
    assert_eq!(error.kind(), TransportErrorKind::Mismatch, "{error}");
    let kept = stage.plan("kept", &[]);
    declare(&*stage.connection, &kept).await;
}

/// Lanes by topic; a handler that says what it begins and waits until the gate is behind its number.
fn gated<H: Harness>(
    stage: &Stage<'_, H>,
    gate: &watch::Sender<u64>,
) -> (Subscription, mpsc::UnboundedReceiver<(String, u64)>) {
    let (say, heard) = mpsc::unbounded_channel();
    let gate = gate.subscribe();
    let handler = move |meta: Topic, Json(n): Json<u64>| {
        let (say, mut gate) = (say.clone(), gate.clone());
        async move {
            let _ = say.send((meta.0, n));
            gate.wait_for(|gate| *gate > n).await?;
            Ok::<(), HandlerError>(())
        }
    };
    (ordered(stage).concurrency(16).handler(handler), heard)
}

fn ordered<H: Harness>(stage: &Stage<'_, H>) -> SubscriptionBuilder {
    subscription(stage, &["#"]).ordered_by(OrderKey::topic()).single_active_consumer()
}

/// The last word of the topic.
struct Topic(String);

impl crate::FromContext for Topic {
    async fn from_context(context: &crate::Context) -> Result<Self, HandlerError> {
        Ok(Self(context.routing_key().rsplit('.').next().unwrap_or_default().to_owned()))
    }
}

/// Two keys run side by side; two messages of one key do not.
pub async fn lanes_run_beside_each_other_and_each_in_its_order<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let gate = watch::Sender::new(0);
    let (subscription, mut heard) = gated(&stage, &gate);
    let running = start(&stage, "service", subscription).await;
    for n in 0..3 {
        for key in ["a", "b"] {
            publish(&stage, &running, key, n).await;
        }
    }
    for n in 0..3 {
        let mut begun = Vec::new();
        for _ in 0..2 {
            begun.push(soon("a handling", heard.recv()).await.expect("the service runs"));
        }
        begun.sort();
        assert_eq!(begun, [("a".to_owned(), n), ("b".to_owned(), n)]);
        assert!(heard.try_recv().is_err(), "a lane handles one at a time");
        gate.send_replace(n + 1);
    }
    stop(running).await;
}

/// A failed message holds its own lane up, and no other; nothing overtakes it.
pub async fn a_retried_message_is_not_overtaken_by_its_lane<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = mpsc::unbounded_channel();
    let handler = move |meta: Topic, Attempt(attempt): Attempt, Json(n): Json<u64>| {
        let say = say.clone();
        async move {
            let _ = say.send((meta.0.clone(), n, attempt));
            match (meta.0.as_str(), n, attempt) {
                ("a", 0, 1 | 2) => Err(HandlerError::retryable("not yet")),
                _ => Ok(()),
            }
        }
    };
    let running = start(&stage, "service", ordered(&stage).concurrency(1).handler(handler)).await;
    for key in ["a", "b"] {
        for n in 0..2 {
            publish(&stage, &running, key, n).await;
        }
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let (key, n, attempt) = soon("a handling", heard.recv()).await.expect("the service runs");
        if key == "a" { a.push((n, attempt)) } else { b.push((n, attempt)) }
    }
    assert_eq!(a, [(0, 1), (0, 2), (0, 3), (1, 1)]);
    assert_eq!(b, [(0, 1), (1, 1)]);
    let stats = running.stats().clone();
    stop(running).await;
    let counts = stats.total();
    assert_eq!((counts.fetched, counts.retried, counts.succeeded), (6, 2, 4));
    stage.until_ready(&queue_of(&stage), 0).await;
}

/// What waits for its next attempt when the service stops goes back in its order, at once, and the
/// next instance goes on with it.
pub async fn a_stop_during_a_wait_gives_back_in_order<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = mpsc::unbounded_channel();
    let failing = move |Json(n): Json<u64>| {
        let say = say.clone();
        async move {
            let _ = say.send(n);
            Err::<(), _>(HandlerError::retryable("not here").retry_after(Duration::from_secs(600)))
        }
    };
    let first = start(&stage, "service", ordered(&stage).handler(failing)).await;
    let gate = watch::Sender::new(u64::MAX);
    let (subscription, mut second_heard) = gated(&stage, &gate);
    let second = start(&stage, "service", subscription).await;
    for n in 0..10 {
        publish(&stage, &first, "a", n).await;
    }
    assert_eq!(soon("a handling", heard.recv()).await, Some(0));
    let stats = first.stats().clone();
    stop(first).await;
    let counts = stats.total();
    assert_eq!((counts.fetched, counts.retried, counts.settlements_lost), (1, 1, 0));
    for n in 0..10 {
        let next = soon("a handling", second_heard.recv()).await;
        assert_eq!(next, Some(("a".to_owned(), n)));
    }
    stop(second).await;
    stage.until_ready(&QueuePlan::new(stage.name("service.q"), QueueMode::PerService), 0).await;
}

/// The deliveries that a lane holds are stale after a cut, and their messages come again: in their
/// order, and going on with the attempts that were made.
pub async fn a_cut_during_a_wait_neither_reorders_nor_forgets_attempts<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = mpsc::unbounded_channel();
    let handler = move |meta: Meta, Attempt(attempt): Attempt, Json(n): Json<u64>| {
        let say = say.clone();
        async move {
            assert!(meta.id.is_some(), "published messages have ids");
            let _ = say.send((n, attempt));
            if n == 0 && attempt < 3 {
                return Err(HandlerError::retryable("not yet").retry_after(Duration::from_secs(1)));
            }
            Ok(())
        }
    };
    let running = start(&stage, "service", ordered(&stage).handler(handler)).await;
    for n in 0..5 {
        publish(&stage, &running, "a", n).await;
    }
    assert_eq!(soon("a handling", heard.recv()).await, Some((0, 1)));
    harness.cut().await;
    let mut seen = vec![("a", 0)];
    let mut attempts = Vec::new();
    while seen.last() != Some(&("a", 4)) {
        let (n, attempt) = soon("a handling", heard.recv()).await.expect("the service runs");
        seen.push(("a", n));
        if n == 0 {
            attempts.push(attempt);
        }
    }
    assert_eq!(disorder(&seen), []);
    assert_eq!(attempts, [2, 3], "the attempts go on");
    stop(running).await;
    stage.until_ready(&queue_of(&stage), 0).await;
}
