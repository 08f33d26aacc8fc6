//! Publishing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::options::QueueDeclareOptions;
use lapin::types::AMQPValue;
use mmate_core::PublishError;
use mmate_core::message::{HeaderValue, Properties};
use mmate_core::transport::{Connection, Destination, Publication};
use mmate_test_support::{RabbitMq, amqp_url, unique};

use crate::support::{
    Stranger, ack, blocking, broker, connect, ctl, event, headers, id_of, long, message, next,
    plan, private_url, shared, table, topic,
};

fn to_queue(queue: &str, id: &str) -> Publication {
    Publication::new(Destination::Queue(queue.to_owned()), message(id))
}

#[tokio::test]
async fn properties_and_headers_are_on_the_wire_as_any_client_reads_them() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let plan = plan("wire");
    connection.declare(&plan).await.unwrap();
    let mut publication = event(&plan, "the-id");
    let message = &mut publication.message;
    message.properties = Properties::default();
    message.properties.content_type = Some("application/json".to_owned());
    message.properties.message_id = Some("the-id".to_owned());
    message.properties.correlation_id = Some("the-conversation".to_owned());
    message.properties.message_type = Some("OrderCreated".to_owned());
    message.properties.timestamp =
        Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_900));
    message.properties.reply_to = Some("answers".to_owned());
    message.properties.app_id = Some("shop".to_owned());
    message.properties.persistent = true;
    message.headers.insert("text", "größe");
    message.headers.insert("int", -7_i64);
    message.headers.insert("float", 0.5_f64);
    message.headers.insert("bool", true);
    message.headers.insert("bytes", HeaderValue::Bytes(Bytes::from_static(b"\xff\0")));
    connection.publish(publication).await.unwrap();

    let got = stranger.get(&plan.name).await.delivery;
    assert_eq!(got.exchange.as_str(), "mmate.events");
    assert_eq!(got.routing_key.as_str(), format!("{}.created", plan.name));
    assert_eq!(got.data, b"body of the-id");
    let properties = &got.properties;
    let text = |text: &Option<lapin::types::ShortString>| text.as_ref().unwrap().to_string();
    assert_eq!(text(properties.content_type()), "application/json");
    assert_eq!(text(properties.message_id()), "the-id");
    assert_eq!(text(properties.correlation_id()), "the-conversation");
    assert_eq!(text(properties.kind()), "OrderCreated");
    assert_eq!(text(properties.reply_to()), "answers");
    assert_eq!(text(properties.app_id()), "shop");
    assert_eq!(*properties.timestamp(), Some(1_700_000_000));
    assert_eq!(*properties.delivery_mode(), Some(2));
    let expected = [
        ("bool", AMQPValue::Boolean(true)),
        ("bytes", AMQPValue::ByteArray(vec![0xff, 0].into())),
        ("float", AMQPValue::Double(0.5)),
        ("int", AMQPValue::LongLongInt(-7)),
        ("text", long("größe")),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(headers(properties).into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn an_unroutable_message_says_where_it_was_to_go() {
    let connection = connect(shared()).await;
    let nobody = unique("nobody");
    let to = topic("mmate.events", &format!("{nobody}.created"));
    let error = connection.publish(Publication::new(to.clone(), message("1"))).await.unwrap_err();
    assert!(matches!(error, PublishError::Unroutable { .. }), "{error}");
    assert!(error.to_string().contains(&format!("topic {nobody}.created")), "{error}");
    let error = connection.publish(to_queue(&nobody, "2")).await.unwrap_err();
    assert!(matches!(error, PublishError::Unroutable { .. }), "{error}");
    assert!(error.to_string().contains(&format!("queue {nobody}")), "{error}");

    let mut optional = Publication::new(to, message("3"));
    optional.mandatory = false;
    connection.publish(optional).await.unwrap();
}

/// lapin hands a returned message to the next publish that is confirmed, whosever it is.
#[tokio::test(flavor = "multi_thread")]
async fn among_many_at_a_time_exactly_the_unroutable_ones_are_told_so() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection: Arc<dyn Connection> = Arc::from(connect(shared()).await);
    let plan = plan("mixed");
    connection.declare(&plan).await.unwrap();
    let nobody = unique("nobody");
    for round in 0..5_u32 {
        let publishes = (0..400_u32).map(|n| {
            let (connection, plan, nobody) =
                (Arc::clone(&connection), plan.clone(), nobody.clone());
            tokio::spawn(async move {
                let id = format!("{round}/{n}");
                let publication = match n % 3 {
                    0 => to_queue(&nobody, &id),
                    1 => to_queue(&plan.name, &id),
                    _ => event(&plan, &id),
                };
                (n, connection.publish(publication).await)
            })
        });
        for published in join_all(publishes).await {
            let (n, result) = published.unwrap();
            match n % 3 {
                0 => assert!(matches!(result, Err(PublishError::Unroutable { .. })), "{result:?}"),
                _ => result.unwrap(),
            }
        }
        stranger.until_ready(&plan.name, (round + 1) * 266).await;
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_so() {
    let stranger = Stranger::at(&amqp_url()).await;
    let queue = unique("full");
    let arguments =
        table([("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", long("reject-publish"))]);
    let options = QueueDeclareOptions::exclusive();
    stranger.channel.queue_declare(queue.as_str().into(), options, arguments).await.unwrap();
    let connection = connect(shared()).await;
    connection.publish(to_queue(&queue, "1")).await.unwrap();
    let error = connection.publish(to_queue(&queue, "2")).await.unwrap_err();
    assert!(matches!(error, PublishError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(&queue), "{error}");
}

/// The broker closes the channel over such a message, with all that is in flight on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_a_missing_exchange_harms_nobody_else() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection: Arc<dyn Connection> = Arc::from(connect(shared()).await);
    let plan = plan("neighbours");
    connection.declare(&plan).await.unwrap();
    let exchange = unique("later-deleted");
    let other =
        plan.clone().bind(exchange.as_str(), mmate_core::topic::TopicPattern::new("#").unwrap());
    connection.declare(&other).await.unwrap();
    connection.publish(Publication::new(topic(&exchange, "a"), message("first"))).await.unwrap();
    let delete = lapin::options::ExchangeDeleteOptions::default();
    stranger.channel.exchange_delete(exchange.as_str().into(), delete).await.unwrap();

    let publishes = (0..300_u32).map(|n| {
        let (connection, plan, exchange) =
            (Arc::clone(&connection), plan.clone(), exchange.clone());
        tokio::spawn(async move {
            match n % 100 {
                50 => {
                    let to = topic(&exchange, "a");
                    let error = connection.publish(Publication::new(to, message("x"))).await;
                    let error = error.unwrap_err();
                    assert!(matches!(error, PublishError::Refused { .. }), "{error}");
                    assert!(error.to_string().contains("NOT_FOUND"), "{error}");
                }
                _ => connection.publish(event(&plan, &n.to_string())).await.unwrap(),
            }
        })
    });
    for published in join_all(publishes).await {
        published.unwrap();
    }
    let mut consumer = connection.consume(&plan, 500).await.unwrap();
    let mut ids = HashSet::new();
    while ids.len() < 298 {
        let delivery = next(&mut consumer).await;
        ids.insert(id_of(&delivery));
        ack(delivery).await;
    }
}

/// The same for an exchange that is there and that we may not publish to; at once, and later.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_a_forbidden_exchange_harms_nobody_else() {
    let url = private_url();
    let user = unique("subscriber");
    ctl(&["add_user", &user, "secret"]);
    ctl(&["set_permissions", &user, ".*", "^(?!mmate\\.commands$)", ".*"]);
    let limited = broker(&url.replace("guest:guest", &format!("{user}:secret")));
    let connection: Arc<dyn Connection> = Arc::from(connect(limited).await);
    let plan = plan("forbidden");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 500).await.unwrap();
    for round in 0..3_u32 {
        let publishes = (0..100_u32).map(|n| {
            let (connection, plan) = (Arc::clone(&connection), plan.clone());
            tokio::spawn(async move {
                if n % 20 == 10 {
                    let to = topic("mmate.commands", "cmd.any");
                    let error = connection.publish(Publication::new(to, message("x"))).await;
                    let error = error.unwrap_err();
                    assert!(matches!(error, PublishError::Refused { .. }), "{error}");
                    assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
                } else {
                    connection.publish(event(&plan, &format!("{round}/{n}"))).await.unwrap();
                }
            })
        });
        for published in join_all(publishes).await {
            published.unwrap();
        }
        let (mut ids, mut copies) = (HashSet::new(), 0);
        while ids.len() < 95 {
            let delivery = next(&mut consumer).await;
            if id_of(&delivery).starts_with(&format!("{round}/")) {
                ids.insert(id_of(&delivery));
                copies += 1;
            }
            ack(delivery).await;
        }
        println!("round {round}: {copies} copies of {} messages", ids.len());
        assert!(round == 0 || copies == ids.len(), "what is known to be forbidden goes alone");
    }
}

/// A publisher may come before any subscriber, and after somebody has tidied up.
#[tokio::test(flavor = "multi_thread")]
async fn mmates_own_exchanges_are_made_when_they_are_missing() {
    let mut server = blocking(|| RabbitMq::start().unwrap()).await;
    let url = server.url();
    let connection = connect(broker(&url)).await;
    let publication = || {
        let mut publication = Publication::new(topic("mmate.queries", "qry.Any"), message("1"));
        publication.mandatory = false;
        publication
    };
    connection.publish(publication()).await.unwrap();
    let stranger = Stranger::at(&url).await;
    let delete = lapin::options::ExchangeDeleteOptions::default();
    stranger.channel.exchange_delete("mmate.queries".into(), delete).await.unwrap();
    connection.publish(publication()).await.unwrap();
    connection.close().await;
    blocking(move || server.kill()).await;
}

#[tokio::test]
async fn what_does_not_fit_on_the_wire_is_refused_unsent() {
    let connection = connect(shared()).await;
    let plan = plan("large");
    connection.declare(&plan).await.unwrap();
    let mut headers = event(&plan, "1");
    headers.message.headers.insert("large", "x".repeat(130_000));
    let mut name = event(&plan, "2");
    name.message.headers.insert("n".repeat(256), 1_i64);
    let mut id = event(&plan, "3");
    id.message.properties.message_id = Some("i".repeat(256));
    for publication in [headers, name, id, to_queue(&"q".repeat(256), "4")] {
        let error = connection.publish(publication).await.unwrap_err();
        assert!(matches!(error, PublishError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("it was not sent"), "{error}");
    }
    connection.publish(event(&plan, "5")).await.unwrap();
}

/// F3
#[tokio::test]
async fn headers_of_64_kib_and_a_body_of_a_mebibyte_pass() {
    let connection = connect(shared()).await;
    let plan = plan("large");
    connection.declare(&plan).await.unwrap();
    let mut publication = event(&plan, "1");
    publication.message.headers.insert("large", "x".repeat(64 * 1024));
    publication.message.body = vec![7; 1 << 20].into();
    connection.publish(publication).await.unwrap();
    let delivery = next(&mut connection.consume(&plan, 1).await.unwrap()).await;
    assert_eq!(delivery.message.body.len(), 1 << 20);
    assert_eq!(delivery.message.headers.text("large").map(str::len), Some(64 * 1024));
}
