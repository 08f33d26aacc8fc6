//! RabbitMQ's routing and ours.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, ExchangeKind};
use mmate_core::topic::TopicPattern;
use mmate_test_support::{amqp_url, unique};

use crate::support::Stranger;

const QUEUES: usize = 60;
const KEYS: usize = 80;

/// What a subscriber is told a pattern matches is what the broker routes: compared over random
/// patterns and keys of few words, so that they meet often; keys with empty words and the empty key
/// among them.
#[tokio::test]
async fn our_matching_agrees_with_the_brokers_routing() {
    let stranger = Stranger::at(&amqp_url()).await;
    let channel = &stranger.channel;
    let exchange = unique("matcher");
    let transient = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    let none = FieldTable::default;
    channel
        .exchange_declare(exchange.as_str().into(), ExchangeKind::Topic, transient, none())
        .await
        .unwrap();

    let patterns: Vec<_> = (0..QUEUES).map(|_| random(&["a", "b", "*", "#"], 1)).collect();
    let mut keys: Vec<_> = (0..KEYS).map(|_| random(&["a", "b", "c", ""], 0)).collect();
    keys.extend([String::new(), ".".to_owned(), "a".to_owned(), ".a".to_owned(), "a.".to_owned()]);

    let mut consumers = stream::SelectAll::new();
    for (number, pattern) in patterns.iter().enumerate() {
        let queue = format!("{exchange}.{number}");
        let (queue, at) = (queue.as_str().into(), QueueDeclareOptions::exclusive());
        let queue: lapin::types::ShortString = queue;
        channel.queue_declare(queue.clone(), at, none()).await.unwrap();
        let bind = QueueBindOptions::default();
        let key = pattern.as_str().into();
        channel
            .queue_bind(queue.clone(), exchange.as_str().into(), key, bind, none())
            .await
            .unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let consumer = channel.basic_consume(queue, "".into(), options, none()).await.unwrap();
        consumers.push(consumer.map(move |delivery| (number, delivery.unwrap())));
    }
    let options = BasicPublishOptions::default();
    let publish = async |exchange: &str, key: &str, body: &[u8]| {
        let properties = BasicProperties::default();
        let sent = channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        sent.await.unwrap();
    };
    for (number, key) in keys.iter().enumerate() {
        publish(&exchange, key, number.to_string().as_bytes()).await;
    }
    // The last message of each queue.
    for number in 0..QUEUES {
        publish("", &format!("{exchange}.{number}"), b"end").await;
    }

    let mut routed = HashSet::new();
    let mut ended = 0;
    while ended < QUEUES {
        let (queue, delivery) = consumers.next().await.unwrap();
        match std::str::from_utf8(&delivery.data).unwrap() {
            "end" => ended += 1,
            key => assert!(routed.insert((queue, key.parse::<usize>().unwrap())), "one copy each"),
        }
    }
    let mut matches = 0;
    for (queue, pattern) in patterns.iter().enumerate() {
        let ours = TopicPattern::new(pattern.as_str()).unwrap();
        assert_eq!(ours.binding_key(), pattern.as_str());
        for (number, key) in keys.iter().enumerate() {
            let theirs = routed.contains(&(queue, number));
            assert_eq!(
                ours.matches(key),
                theirs,
                "{pattern:?} and {key:?}: the broker says {theirs}"
            );
            matches += usize::from(theirs);
        }
    }
    println!("{} pairs, {matches} matches", patterns.len() * keys.len());
    // Around 700; much fewer, and the test would compare nothing but silence.
    assert!(matches > 200, "random pairs have to meet: {matches}");
}

fn random(words: &[&str], at_least: usize) -> String {
    let count = fastrand::usize(at_least..6);
    (0..count).map(|_| words[fastrand::usize(..words.len())]).collect::<Vec<_>>().join(".")
}
