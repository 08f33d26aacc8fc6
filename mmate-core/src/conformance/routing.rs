//! Which queue a message reaches.

use super::Harness;
use super::stage::{Stage, send};
use crate::message::{Message, wire};
use crate::topic::TopicPattern;
use crate::transport::{Destination, Publication, PublishError, QueueMode, QueuePlan};

/// Topic routing.
pub async fn a_message_reaches_every_queue_whose_pattern_matches_and_no_other<H: Harness>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let orders = stage.queue("orders", &["order.*.*"]).await;
    let created = stage.queue("created", &["*.created.*"]).await;
    let west = stage.queue("west", &["order.created.us-west"]).await;

    stage.publish("order.created.us-west", "one").await;
    stage.publish("order.amended.us-west", "two").await;
    stage.publish("invoice.created.us-west", "three").await;
    for queue in [&orders, &created, &west] {
        stage.put(queue, Message::new("end")).await;
    }

    assert_eq!(stage.inbox(&orders).await.read_until("end").await, ["one", "two"]);
    assert_eq!(stage.inbox(&created).await.read_until("end").await, ["one", "three"]);
    assert_eq!(stage.inbox(&west).await.read_until("end").await, ["one"]);
}

/// S31: several overlapping patterns of one subscription are one copy already at the broker.
pub async fn many_patterns_in_one_queue_give_one_copy<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let patterns = ["order.*.*", "*.created.*", "order.#", "order.created.us-west"];
    let queue = stage.queue("q", &patterns).await;
    stage.publish("order.created.us-west", "one").await;
    stage.put(&queue, Message::new("end")).await;
    assert_eq!(stage.inbox(&queue).await.read_until("end").await, ["one"]);
}

/// The wildcards mean what they mean in [`TopicPattern::matches`].
pub async fn a_star_is_one_word_and_a_hash_is_any_number<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let patterns = ["a.*", "a.#", "#.b", "a.*.b", "a.#.b", "*.b", "#"];
    let topics = ["a", "b", "a.b", "a.x.b", "a.x.y.b", "b.a", "x"];
    let mut queues = Vec::new();
    for (number, pattern) in patterns.iter().enumerate() {
        queues.push(stage.queue(&format!("q{number}"), &[*pattern]).await);
    }
    // A queue that takes everything, so that no topic is unroutable.
    let all = stage.queue("all", &["#"]).await;
    for topic in topics {
        stage.publish(topic, topic).await;
    }
    for (queue, pattern) in queues.iter().zip(patterns) {
        stage.put(queue, Message::new("end")).await;
        let wanted = TopicPattern::new(pattern).expect("the case's patterns are patterns");
        let wanted: Vec<_> = topics.into_iter().filter(|topic| wanted.matches(topic)).collect();
        assert_eq!(stage.inbox(queue).await.read_until("end").await, wanted, "{pattern}");
    }
    stage.put(&all, Message::new("end")).await;
    assert_eq!(stage.inbox(&all).await.read_until("end").await, topics);
}

/// A broker need not know globs, and may let more through: the service filters. It must not let
/// less through.
pub async fn a_pattern_with_a_glob_gets_all_that_it_matches<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.*.eu-*"]).await;
    stage.publish("order.created.eu-west", "west").await;
    stage.publish("order.created.eu-north", "north").await;
    stage.put(&queue, Message::new("end")).await;
    assert_eq!(stage.inbox(&queue).await.read_until("end").await, ["west", "north"]);
}

/// Exchanges are kept apart.
pub async fn the_same_topic_on_another_exchange_is_another_topic<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let events = stage.queue("events", &["a.b"]).await;
    let commands = QueuePlan::new(stage.name("commands"), QueueMode::Shared)
        .bind(wire::COMMANDS, stage.pattern("a.b"));
    super::stage::declare(&*stage.connection, &commands).await;

    stage.publish("a.b", "event").await;
    let to = Destination::Exchange { name: wire::COMMANDS.to_owned(), topic: stage.topic("a.b") };
    send(&*stage.connection, to, Message::new("command")).await;
    for queue in [&events, &commands] {
        stage.put(queue, Message::new("end")).await;
    }
    assert_eq!(stage.inbox(&events).await.read_until("end").await, ["event"]);
    let mut inbox = stage.inbox(&commands).await;
    let delivery = inbox.next().await;
    assert_eq!(delivery.exchange, wire::COMMANDS);
    super::stage::ack(delivery).await;
    assert_eq!(inbox.read_until("end").await, [""; 0]);
}

/// A subscription may name an exchange of its own.
pub async fn an_exchange_that_nobody_made_is_made<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let name = stage.name("exchange");
    let queue = QueuePlan::new(stage.name("q"), QueueMode::PerService)
        .bind(name.clone(), stage.pattern("#"));
    super::stage::declare(&*stage.connection, &queue).await;
    let to = Destination::Exchange { name, topic: stage.topic("a") };
    send(&*stage.connection, to, Message::new("one")).await;
    assert_eq!(stage.inbox(&queue).await.read().await, "one");
}

/// Commands and replies go to a queue by its name.
pub async fn a_message_sent_to_a_queue_by_name_reaches_that_queue_alone<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let other = stage.queue("other", &["#"]).await;
    stage.put(&queue, Message::new("one")).await;
    stage.put(&other, Message::new("end")).await;

    let delivery = stage.inbox(&queue).await.next().await;
    assert_eq!(delivery.message.body, "one");
    assert_eq!(delivery.queue, queue.name);
    assert_eq!(delivery.exchange, "");
    assert_eq!(delivery.routing_key, queue.name);
    assert_eq!(stage.inbox(&other).await.read_until("end").await, [""; 0]);
}

/// A message that reaches nobody is not lost in silence.
pub async fn an_unroutable_message_is_an_error<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["a.b"]).await;
    let nowhere = [stage.event("a.c"), Destination::Queue(stage.name("missing"))];
    for destination in nowhere {
        let publication = Publication::new(destination.clone(), Message::new("lost"));
        let result = stage.connection.publish(publication).await;
        let Err(PublishError::Unroutable { destination: told }) = result else {
            panic!("publishing to the {destination} is unroutable, and was {result:?}");
        };
        assert_eq!(told, destination.to_string());
    }
    // And the connection goes on.
    stage.publish("a.b", "one").await;
    assert_eq!(stage.inbox(&queue).await.read().await, "one");
}

/// Unless its publisher said so.
pub async fn an_unroutable_message_may_vanish_when_that_is_allowed<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["a.b"]).await;
    for destination in [stage.event("a.c"), Destination::Queue(stage.name("missing"))] {
        let mut publication = Publication::new(destination, Message::new("lost"));
        publication.mandatory = false;
        let published = stage.connection.publish(publication).await;
        published.expect("a message that need not arrive may be unroutable");
    }
    stage.publish("a.b", "one").await;
    assert_eq!(stage.inbox(&queue).await.read().await, "one");
}

/// The longest topic there is.
pub async fn a_topic_of_255_bytes_is_routed_whole<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let rest = "a".repeat(255 - stage.name("").len());
    stage.publish(&rest, "one").await;
    let delivery = stage.inbox(&queue).await.next().await;
    assert_eq!(delivery.exchange, wire::EVENTS);
    assert_eq!(delivery.routing_key, stage.name(&rest));
    assert_eq!(delivery.routing_key.len(), 255);
}
