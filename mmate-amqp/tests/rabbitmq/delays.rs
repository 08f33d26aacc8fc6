//! Retries and deferrals.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use mmate_core::message::{InvalidMessage, wire};
use mmate_core::topic::TopicPattern;
use mmate_core::transport::{Destination, Publication, PublishError, QueueMode, Settlement};
use mmate_test_support::{amqp_url, unique};

use crate::support::{
    Stranger, ack, connect, event, headers, id_of, long, message, next, plan, plan_as, retry,
    settle, shared, table, topic,
};

const DELAY: Duration = Duration::from_millis(300);

/// S34
#[tokio::test]
async fn a_retried_message_keeps_what_it_is_and_says_what_failed() {
    let connection = connect(shared()).await;
    for mode in [QueueMode::Shared, QueueMode::PerInstance] {
        let plan = plan_as("retried", mode);
        connection.declare(&plan).await.unwrap();
        let mut consumer = connection.consume(&plan, 10).await.unwrap();
        let mut publication = event(&plan, "the-id");
        publication.message.headers.insert("tenant", "acme");
        connection.publish(publication).await.unwrap();

        let begin = Instant::now();
        settle(next(&mut consumer).await, retry(DELAY)).await;
        let again = next(&mut consumer).await;
        assert!(begin.elapsed() >= DELAY, "{:?}", begin.elapsed());
        assert_eq!(id_of(&again), "the-id");
        assert_eq!((again.failed_attempts, again.deferrals), (1, 0));
        assert_eq!(again.exchange, "mmate.events");
        assert_eq!(again.routing_key, format!("{}.created", plan.name));
        assert_eq!(again.message.body, "body of the-id");
        let headers = &again.message.headers;
        assert_eq!(headers.text("tenant"), Some("acme"));
        assert_eq!(headers.text(wire::ERROR), Some("the disk is full"));
        let first = headers.text(wire::FIRST_FAILED_AT).unwrap().to_owned();

        settle(again, Settlement::Defer { after: DELAY }).await;
        let again = next(&mut consumer).await;
        assert_eq!((again.failed_attempts, again.deferrals), (1, 1), "a deferral is no attempt");
        let long = Settlement::Retry { after: DELAY, error: "é".repeat(5_000) };
        settle(again, long).await;
        let again = next(&mut consumer).await;
        assert_eq!((again.failed_attempts, again.deferrals), (2, 1));
        assert_eq!(again.routing_key, format!("{}.created", plan.name));
        let headers = &again.message.headers;
        assert_eq!(headers.text(wire::FIRST_FAILED_AT), Some(first.as_str()));
        assert_eq!(headers.text(wire::ERROR), Some("é".repeat(512).as_str()), "it is cut");
        ack(again).await;
    }
}

/// Whatever a stranger wrote comes back, but for what would do harm in a copy.
#[tokio::test]
async fn a_strangers_message_comes_back_whole() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let plan = plan("stranger");
    connection.declare(&plan).await.unwrap();
    let other = format!("{}.cc", plan.name);
    let options = QueueDeclareOptions::exclusive();
    stranger
        .channel
        .queue_declare(other.as_str().into(), options, FieldTable::default())
        .await
        .unwrap();

    let odd = table([
        ("timestamp", AMQPValue::Timestamp(7)),
        ("void", AMQPValue::Void),
        ("array", AMQPValue::FieldArray(vec![AMQPValue::LongInt(1), long("two")].into())),
        ("table", AMQPValue::FieldTable(table([("deep", AMQPValue::ShortInt(-1))]))),
        ("bytes", AMQPValue::LongString(b"\xff\xfe".to_vec().into())),
        ("CC", AMQPValue::FieldArray(vec![long(&other)].into())),
    ]);
    let properties = BasicProperties::default()
        .with_headers(odd)
        .with_content_encoding("gzip".into())
        .with_priority(4)
        .with_user_id("guest".into())
        .with_cluster_id("c".into())
        .with_timestamp(u64::MAX)
        // Shorter than the delay.
        .with_expiration("60000".into());
    stranger.publish(&plan.name, properties, b"\x00\xff").await;

    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    let first = next(&mut consumer).await;
    assert_eq!(first.message.properties.timestamp, None, "a time that is none");
    settle(first, retry(DELAY)).await;
    let again = next(&mut consumer).await;
    assert_eq!((again.exchange.as_str(), again.routing_key.as_str()), ("", plan.name.as_str()));
    settle(again, crate::support::bury()).await;

    let dead = stranger.get(&plan.dead_letter_queue()).await.delivery;
    assert_eq!(dead.data, b"\x00\xff");
    let found = headers(&dead.properties);
    assert_eq!(found["timestamp"], AMQPValue::Timestamp(7));
    assert_eq!(found["void"], AMQPValue::Void);
    assert_eq!(
        found["array"],
        AMQPValue::FieldArray(vec![AMQPValue::LongInt(1), long("two")].into())
    );
    assert_eq!(found["table"], AMQPValue::FieldTable(table([("deep", AMQPValue::ShortInt(-1))])));
    assert_eq!(found["bytes"], AMQPValue::LongString(b"\xff\xfe".to_vec().into()));
    let properties = &dead.properties;
    assert_eq!(properties.content_encoding().as_ref().unwrap().as_str(), "gzip");
    assert_eq!(*properties.priority(), Some(4));
    assert_eq!(properties.user_id().as_ref().unwrap().as_str(), "guest");
    assert_eq!(properties.cluster_id().as_ref().unwrap().as_str(), "c");
    assert_eq!(*properties.timestamp(), Some(u64::MAX));
    assert_eq!(*properties.expiration(), None);
    // The first publish brought one; no copy did.
    assert_eq!(stranger.ready(&other).await, Some(1));
}

/// A message that has been dead-lettered and moved back carries an x-death header. RabbitMQ would
/// drop its delayed copy, as one that goes round in a circle.
#[tokio::test]
async fn a_message_that_was_moved_back_from_the_dead_letters_is_delayed_and_comes_back() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let plan = plan("circle");
    connection.declare(&plan).await.unwrap();
    let death = table([
        ("count", AMQPValue::LongLongInt(1)),
        ("exchange", long("mmate.events")),
        ("queue", long(&plan.name)),
        ("reason", long("delivery_limit")),
        ("routing-keys", AMQPValue::FieldArray(vec![long("a")].into())),
        ("time", AMQPValue::Timestamp(1)),
    ]);
    let deaths = AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into());
    let properties = BasicProperties::default().with_headers(table([("x-death", deaths)]));
    stranger.publish(&plan.name, properties, b"moved").await;
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    for attempts in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.failed_attempts, attempts);
        settle(delivery, retry(Duration::from_millis(50))).await;
    }
    ack(next(&mut consumer).await).await;
}

#[tokio::test]
async fn a_senders_own_expiration_does_not_end_a_delayed_copy_early() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let plan = plan("expiring");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    let properties = BasicProperties::default().with_expiration("1000".into());
    stranger.publish(&plan.name, properties, b"once").await;
    let begin = Instant::now();
    settle(next(&mut consumer).await, retry(Duration::from_millis(1600))).await;
    ack(next(&mut consumer).await).await;
    assert!(begin.elapsed() >= Duration::from_millis(1600), "{:?}", begin.elapsed());
}

/// F27
#[tokio::test]
async fn a_delay_queue_that_is_deleted_is_made_again() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    for mode in [QueueMode::Shared, QueueMode::PerInstance] {
        let plan = plan_as("delays", mode);
        connection.declare(&plan).await.unwrap();
        let mut consumer = connection.consume(&plan, 10).await.unwrap();
        connection.publish(event(&plan, "1")).await.unwrap();
        settle(next(&mut consumer).await, retry(DELAY)).await;
        let delivery = next(&mut consumer).await;
        if mode == QueueMode::Shared {
            let queue = format!("{}.delay.500", plan.name);
            let options = QueueDeleteOptions::default();
            stranger.channel.queue_delete(queue.as_str().into(), options).await.unwrap();
        }
        settle(delivery, retry(DELAY)).await;
        let again = next(&mut consumer).await;
        assert_eq!(again.failed_attempts, 2);
        ack(again).await;
    }
}

#[tokio::test]
async fn a_delay_of_years_waits_for_a_day() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let plan = plan("years");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    for after in [Duration::MAX, Duration::from_secs(100_000)] {
        connection.publish(event(&plan, "1")).await.unwrap();
        settle(next(&mut consumer).await, Settlement::Defer { after }).await;
    }
    stranger.until_ready(&format!("{}.delay.86400000", plan.name), 2).await;
}

/// F27: what delayed messages wait in, for an exchange and for a queue.
#[tokio::test(flavor = "multi_thread")]
async fn what_published_messages_wait_in_is_made_again_when_it_was_deleted() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let exchange = unique("later");
    let plan = plan("later").bind(exchange.as_str(), TopicPattern::new("order.*").unwrap());
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    let event = |id| Publication::new(topic(&exchange, "order.unpaid"), message(id)).delay(DELAY);
    let to_queue =
        |id| Publication::new(Destination::Queue(plan.name.clone()), message(id)).delay(DELAY);
    connection.publish(event("1")).await.unwrap();
    connection.publish(to_queue("2")).await.unwrap();
    for _ in 0..2 {
        ack(next(&mut consumer).await).await;
    }
    let waits = format!("{exchange}.delay.500");
    let channel = &stranger.channel;
    channel.queue_delete(waits.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let own = format!("{}.delay.500", plan.name);
    channel.queue_delete(own.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    connection.publish(event("3")).await.unwrap();
    connection.publish(to_queue("4")).await.unwrap();
    for _ in 0..2 {
        ack(next(&mut consumer).await).await;
    }
    let options = ExchangeDeleteOptions::default();
    channel.exchange_delete(waits.as_str().into(), options).await.unwrap();
    connection.publish(event("5")).await.unwrap();
    assert_eq!(id_of(&next(&mut consumer).await), "5");
}

/// It is refused before it is sent.
#[tokio::test]
async fn a_message_is_not_published_for_later_than_in_a_day() {
    let connection = connect(shared()).await;
    let plan = plan("days");
    connection.declare(&plan).await.unwrap();
    let day = Duration::from_secs(86_400);
    connection.publish(event(&plan, "1").delay(day)).await.unwrap();
    let longer = event(&plan, "2").delay(day + Duration::from_millis(1));
    let error = connection.publish(longer).await.unwrap_err();
    assert!(matches!(error, PublishError::Invalid(InvalidMessage::Delay { .. })), "{error:?}");
}

/// S34: the message was never dead to itself, so it can be retried at the same step.
#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_can_be_retried() {
    let connection = connect(shared()).await;
    let plan = plan("both");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    let to_queue = Publication::new(Destination::Queue(plan.name.clone()), message("q"));
    for publication in [event(&plan, "e").delay(DELAY), to_queue.delay(DELAY)] {
        connection.publish(publication).await.unwrap();
        for attempts in 0..3 {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.failed_attempts, attempts);
            match attempts {
                2 => ack(delivery).await,
                _ => settle(delivery, retry(DELAY)).await,
            }
        }
    }
}
