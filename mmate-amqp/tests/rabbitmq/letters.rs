//! Working on dead letters, where RabbitMQ has a mind of its own.

use std::future::IntoFuture;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use mmate_amqp::Amqp;
use mmate_core::message::wire;
use mmate_core::transport::QueuePlan;
use mmate_core::{DeadLetters, Letter};
use mmate_test_support::amqp_url;

use crate::proxy::Proxy;
use crate::support::{
    Stranger, ack, bury, connect, event, headers, id_of, long, message, next, plan, settle, shared,
    table,
};

async fn letters(plan: &QueuePlan) -> DeadLetters {
    DeadLetters::connect(&shared(), plan.name.as_str()).await.unwrap()
}

fn ids(letters: &[Letter]) -> Vec<&str> {
    letters.iter().map(|letter| letter.message_id().unwrap_or("none")).collect()
}

/// Has the broker give a message up by itself, which was shown too often.
async fn die_of_the_limit(plan: &QueuePlan, id: &str) {
    let with_limit = || shared().delivery_limit(1);
    let publisher = connect(with_limit()).await;
    publisher.declare(plan).await.unwrap();
    publisher.publish(event(plan, id)).await.unwrap();
    publisher.close().await;
    for _ in 0..2 {
        let connection = connect(with_limit()).await;
        let delivery = next(&mut connection.consume(plan, 1).await.unwrap()).await;
        drop(delivery);
        connection.close().await;
    }
}

/// Those that the broker gave up by itself have no notes of ours.
#[tokio::test]
async fn a_letter_of_the_broker_is_inspected_replayed_and_discarded_like_any_other() {
    let stranger = Stranger::at(&amqp_url()).await;
    let plan = plan("limit");
    die_of_the_limit(&plan, "poison").await;
    stranger.until_ready(&plan.dead_letter_queue(), 1).await;

    let letters = letters(&plan).await;
    let listed = letters.list(10).await.unwrap();
    assert_eq!(ids(&listed), ["poison"]);
    let letter = &listed[0];
    assert_eq!((letter.reason(), letter.is_by_broker()), ("delivery_limit", true));
    assert_eq!((letter.exchange(), letter.queue()), ("mmate.events", plan.name.as_str()));
    assert_eq!(letter.routing_key(), format!("{}.created", plan.name));
    assert_eq!((letter.error(), letter.attempts()), (None, 0));
    assert!(letter.died_at().is_some());

    assert_eq!(letters.replay("poison").await.unwrap(), 1);
    let replayed = stranger.get(&plan.name).await.delivery;
    let found = headers(&replayed.properties);
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(names, [wire::EXCHANGE, wire::REPLAYS, wire::ROUTING_KEY], "nothing of x-death");
    assert_eq!(found[wire::EXCHANGE], long("mmate.events"));
    letters.close().await;
}

/// After a replay it is the broker that gives up, or we are: the last one counts.
#[tokio::test]
async fn the_reason_is_that_of_the_last_death() {
    let connection = connect(shared().delivery_limit(1)).await;
    let plan = plan("twice");
    connection.declare(&plan).await.unwrap();
    connection.publish(event(&plan, "1")).await.unwrap();
    let mut consumer = connection.consume(&plan, 1).await.unwrap();
    // It waits in a delay queue, of which the broker leaves a note too.
    let short = Duration::from_millis(10);
    settle(next(&mut consumer).await, crate::support::retry(short)).await;
    settle(next(&mut consumer).await, bury()).await;
    consumer.stop().await;
    let letters = letters(&plan).await;
    let ours = letters.list(1).await.unwrap();
    assert_eq!((ours[0].reason(), ours[0].is_by_broker()), ("permanent", false));
    assert_eq!(letters.replay("1").await.unwrap(), 1);
    for _ in 0..2 {
        let other = connect(shared().delivery_limit(1)).await;
        drop(next(&mut other.consume(&plan, 1).await.unwrap()).await);
        other.close().await;
    }
    let stranger = Stranger::at(&amqp_url()).await;
    stranger.until_ready(&plan.dead_letter_queue(), 1).await;
    let theirs = letters.list(1).await.unwrap();
    assert_eq!((theirs[0].reason(), theirs[0].replays()), ("delivery_limit", 1));
    letters.close().await;
}

/// Ids that are no text are mended on their way in, and such a letter can be sent back.
#[tokio::test]
async fn a_letter_with_an_id_that_is_no_text_is_listed_and_replayed() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let plan = plan("no-text");
    connection.declare(&plan).await.unwrap();
    let mut odd = FieldTable::default();
    odd.insert("odd".into(), lapin::types::AMQPValue::LongString(b"\xff\xfe".to_vec().into()));
    odd.insert("nested".into(), lapin::types::AMQPValue::FieldTable(table([("x", long("y"))])));
    let properties = BasicProperties::default()
        .with_message_id("\u{1a}\u{1a}".into())
        .with_priority(3)
        .with_headers(odd.clone());
    stranger.publish(&plan.dead_letter_queue(), properties, b"\xff").await;
    stranger.until_ready(&plan.dead_letter_queue(), 1).await;
    let letters = letters(&plan).await;
    let listed = letters.list(10).await.unwrap();
    assert_eq!((ids(&listed), listed[0].reason()), (vec!["\u{1a}\u{1a}"], "unknown"));
    assert_eq!(letters.replay("\u{1a}\u{1a}").await.unwrap(), 1);
    let replayed = stranger.get(&plan.name).await.delivery;
    assert_eq!(replayed.data, b"\xff");
    // What core has no words for is copied all the same.
    assert_eq!(*replayed.properties.priority(), Some(3));
    let found = headers(&replayed.properties);
    for (name, value) in odd.inner() {
        assert_eq!(found.get(name.as_str()), Some(value), "{name}");
    }
    letters.close().await;
}

/// A dead-letter queue of another make, as mmate for Go has, keeps its order too.
#[tokio::test]
async fn letters_in_a_classic_queue_are_worked_on_as_well() {
    let stranger = Stranger::at(&amqp_url()).await;
    let plan = plan("classic");
    let dead = plan.dead_letter_queue();
    let none = FieldTable::default();
    let options = QueueDeclareOptions::durable();
    stranger.channel.queue_declare(dead.as_str().into(), options, none).await.unwrap();
    let connection = connect(shared()).await;
    connection.declare(&plan).await.unwrap();
    for id in ["1", "2", "3", "4"] {
        let properties = BasicProperties::default().with_message_id(id.into());
        stranger.publish(&dead, properties, b"").await;
    }
    stranger.until_ready(&dead, 4).await;
    let letters = letters(&plan).await;
    for _ in 0..3 {
        assert_eq!(ids(&letters.list(2).await.unwrap()), ["1", "2"]);
    }
    assert_eq!(letters.discard("2").await.unwrap(), 1);
    assert_eq!(ids(&letters.list(9).await.unwrap()), ["1", "3", "4"]);
    letters.close().await;
}

/// Fills the dead-letter queue of a plan with the ids from 0.
async fn fill(plan: &QueuePlan, count: u32) -> Vec<String> {
    let connection = connect(shared()).await;
    connection.declare(plan).await.unwrap();
    let ids: Vec<_> = (0..count).map(|n| n.to_string()).collect();
    for chunk in ids.chunks(500) {
        let publishing = chunk.iter().map(|id| {
            let to = mmate_core::transport::Destination::Queue(plan.dead_letter_queue());
            connection.publish(mmate_core::transport::Publication::new(to, message(id)))
        });
        for published in futures_util::future::join_all(publishing).await {
            published.unwrap();
        }
    }
    connection.close().await;
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_letters_keep_their_order_however_often_they_are_looked_at() {
    let plan = plan("hundreds");
    fill(&plan, 900).await;
    let letters = letters(&plan).await;
    // They were published many at a time, so this is their order.
    let first = letters.list(900).await.unwrap();
    let all: Vec<_> = ids(&first).into_iter().map(str::to_owned).collect();
    assert_eq!(all.len(), 900);
    for count in [900, 1, 500, 40] {
        assert_eq!(ids(&letters.list(count).await.unwrap()), all[..count]);
    }
    assert_eq!(letters.discard("7").await.unwrap(), 1);
    let left: Vec<_> = all.iter().filter(|id| *id != "7").collect();
    assert_eq!(ids(&letters.list(900).await.unwrap()), left);
    letters.close().await;
}

/// What is on its way is not taken for what somebody else has: the broker no longer counts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_slow_to_come_is_replayed() {
    let plan = plan("slow");
    fill(&plan, 1).await;
    let proxy = Proxy::before(&amqp_url()).await;
    let broker = Amqp::new(proxy.url());
    let letters = DeadLetters::connect(&broker, plan.name.as_str()).await.unwrap();
    // The broker's answer to the consumer, and its end of a frame.
    proxy.hold_from_broker_after(b"browse 0000000001\xCE");
    let replaying = letters.replay_where(|_| true).into_future();
    let slow = async {
        proxy.holds_from_broker().await;
        // Longer than a browser waits before it asks whether anything is left.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        proxy.hold_from_broker(false);
    };
    let (replayed, ()) = tokio::join!(replaying, slow);
    assert_eq!(replayed.unwrap(), 1);
    letters.close().await;
}

/// Of a long queue each letter is seen once, and none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_dead_letter_queue_is_gone_through() {
    const COUNT: u32 = 7_000;
    let plan = plan("long");
    let mut all = fill(&plan, COUNT).await;
    let letters = letters(&plan).await;
    let begin = std::time::Instant::now();
    let mut seen = Vec::new();
    let chosen = letters.discard_where(|letter| {
        seen.push(letter.message_id().unwrap().to_owned());
        letter.message_id() == Some("4321")
    });
    assert_eq!(chosen.await.unwrap(), 1);
    println!("{COUNT} letters were gone through in {:?}", begin.elapsed());
    seen.sort();
    all.sort();
    assert_eq!(seen, all);
    let mut left = Vec::new();
    let mut browsed = letters.browse().await.unwrap();
    while let Some(letter) = browsed.next().await.unwrap() {
        left.push(letter.message_id().unwrap().to_owned());
    }
    browsed.close().await;
    left.sort();
    all.retain(|id| id != "4321");
    assert_eq!(left, all);
    letters.close().await;
}

/// F30: the queue that they come from is full. The letters stay.
#[tokio::test]
async fn a_letter_that_its_queue_refuses_stays() {
    let stranger = Stranger::at(&amqp_url()).await;
    let plan = plan("full");
    let connection = connect(shared()).await;
    connection.declare(&plan).await.unwrap();
    let mut other = plan.clone();
    other.name = format!("{}.full", plan.name);
    let full = table([
        ("x-max-length", lapin::types::AMQPValue::LongInt(0)),
        ("x-overflow", long("reject-publish")),
    ]);
    let options = QueueDeclareOptions::durable();
    stranger.channel.queue_declare(other.name.as_str().into(), options, full).await.unwrap();
    let mut dead = plan.clone();
    dead.name = other.dead_letter_queue();
    dead.bindings.clear();
    connection.declare(&dead).await.unwrap();
    let properties = BasicProperties::default().with_message_id("1".into());
    stranger.publish(&dead.name, properties, b"").await;
    stranger.until_ready(&dead.name, 1).await;
    let letters = letters(&other).await;
    let error = letters.replay("1").await.unwrap_err();
    assert!(error.to_string().contains("\"1\"") && error.done() == 0, "{error}");
    stranger.until_ready(&dead.name, 1).await;
    let mut consumer = connection.consume(&dead, 1).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(id_of(&delivery), "1");
    ack(delivery).await;
    letters.close().await;
}
