//! Messages of clients that do as they like.

use std::collections::{BTreeSet, HashSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use mmate_core::message::{HeaderValue, Meta};
use mmate_core::transport::Settlement;
use mmate_test_support::amqp_url;

use crate::support::{
    Stranger, ack, blocking, broker, bury, connect, event, id_of, next, plan, publish_all, shared,
};

/// A client that writes AMQP by hand, and so whatever bytes it likes.
struct Handwriting {
    stream: TcpStream,
    published: u64,
}

/// An AMQP short string.
fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// An AMQP long string, or a table.
fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

impl Handwriting {
    fn connect(url: &str) -> Self {
        let authority = url.split(['@', '/']).nth(3).unwrap();
        let stream = TcpStream::connect(authority).unwrap();
        let mut this = Self { stream, published: 0 };
        this.stream.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
        this.expect([10, 10]);
        let plain = [short(b"PLAIN"), long(b"\0guest\0guest"), short(b"en_US")].concat();
        this.call(0, [10, 11], &[long(b""), plain].concat());
        this.expect([10, 30]);
        this.call(0, [10, 31], &[0x07, 0xff, 0, 2, 0, 0, 0, 0]);
        this.call(0, [10, 40], &[short(b"/"), short(b""), vec![0]].concat());
        this.expect([10, 41]);
        this.call(1, [20, 10], &short(b""));
        this.expect([20, 11]);
        this.call(1, [85, 10], &[0]);
        this.expect([85, 11]);
        this
    }

    /// Publishes; `flags` and `properties` are as on the wire.
    fn publish(&mut self, exchange: &str, key: &[u8], flags: u16, properties: &[u8], body: &[u8]) {
        let arguments = [vec![0, 0], short(exchange.as_bytes()), short(key), vec![0]].concat();
        self.call(1, [60, 40], &arguments);
        let size = u64::try_from(body.len()).unwrap().to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat();
        self.write(2, 1, &header);
        self.write(3, 1, body);
        self.published += 1;
    }

    /// Returns when the broker has everything: what a channel has not handed to a queue when it is closed may be lost.
    fn close(mut self) {
        let mut confirmed = BTreeSet::new();
        while confirmed.len() as u64 != self.published {
            let payload = self.read();
            assert_eq!(payload[..4], [0, 60, 0, 80]);
            let tag = u64::from_be_bytes(payload[4..12].try_into().unwrap());
            let is_multiple = payload[12] & 1 == 1;
            confirmed.extend(if is_multiple { 1..=tag } else { tag..=tag });
        }
        self.call(1, [20, 40], &[vec![0, 200], short(b""), vec![0, 0, 0, 0]].concat());
        self.expect([20, 41]);
    }

    fn call(&mut self, channel: u8, [class, method]: [u8; 2], arguments: &[u8]) {
        self.write(1, channel, &[&[0, class, 0, method], arguments].concat());
    }

    fn write(&mut self, frame_type: u8, channel: u8, payload: &[u8]) {
        let frame = [&[frame_type, 0, channel], &long(payload)[..], &[0xCE]].concat();
        self.stream.write_all(&frame).unwrap();
    }

    fn expect(&mut self, [class, method]: [u8; 2]) {
        assert_eq!(self.read()[..4], [0, class, 0, method]);
    }

    /// What is in the next frame.
    fn read(&mut self) -> Vec<u8> {
        let mut before = [0; 7];
        self.stream.read_exact(&mut before).unwrap();
        let length = u32::from_be_bytes([before[3], before[4], before[5], before[6]]);
        let mut payload = vec![0; length as usize + 1];
        self.stream.read_exact(&mut payload).unwrap();
        payload
    }
}

const HEADERS: u16 = 0x2000;
const MESSAGE_ID: u16 = 0x0080;

/// F2: one such message would end lapin's connection, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_utf8_in_a_message_ends_no_connection_and_harms_no_neighbour() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection: std::sync::Arc<dyn mmate_core::Connection> =
        connect(broker(&amqp_url()).delivery_limit(3)).await.into();
    let plan = plan("unreadable");
    connection.declare(&plan).await.unwrap();
    publish_all(&connection, &plan, 0..50).await;
    let queue = plan.name.clone();
    blocking(move || {
        let mut client = Handwriting::connect(&amqp_url());
        client.publish("", queue.as_bytes(), MESSAGE_ID, &short(b"id-\xff\xfe"), b"bad id");
        let name = [short(b"k\xc3\x28"), b"S".to_vec(), long(b"v\xff")].concat();
        client.publish("", queue.as_bytes(), HEADERS, &long(&name), b"bad header");
        let key = [queue.as_bytes(), b".\xff"].concat();
        client.publish("mmate.events", &key, 0, b"", b"bad key");
        client.close();
    })
    .await;
    publish_all(&connection, &plan, 50..100).await;

    let begin = Instant::now();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    let mut seen = HashSet::new();
    while seen.len() < 103 {
        let delivery = next(&mut consumer).await;
        assert!(!delivery.redelivered, "no connection was lost");
        let body = String::from_utf8(delivery.message.body.to_vec()).unwrap();
        match body.as_str() {
            "bad id" => {
                assert_eq!(id_of(&delivery), "id-\u{1A}\u{1A}");
                let error = Meta::read(&delivery.message).unwrap_err();
                assert!(error.to_string().contains("control character"), "{error}");
                settle_dead(delivery).await;
            }
            "bad header" => {
                let header = delivery.message.headers.value("k\u{1A}(");
                assert_eq!(header, Some(&HeaderValue::Bytes(b"v\xff"[..].into())));
                ack(delivery).await;
            }
            "bad key" => {
                assert_eq!(delivery.routing_key, format!("{}.\u{1A}", plan.name));
                ack(delivery).await;
            }
            _ => ack(delivery).await,
        }
        seen.insert(body);
    }
    println!("103 messages, 3 of them unreadable to lapin, in {:?}", begin.elapsed());
    let dead = plan.dead_letter_queue();
    stranger.until_ready(&dead, 1).await;
    assert_eq!(stranger.get(&dead).await.delivery.data, b"bad id");
}

/// F2: lapin would overflow the stack of its thread over one such message, and end the process.
#[tokio::test]
async fn headers_that_are_nested_without_end_harm_nobody() {
    const LEVELS: usize = 15_000;
    let stranger = Stranger::at(&amqp_url()).await;
    let connection: std::sync::Arc<dyn mmate_core::Connection> =
        connect(broker(&amqp_url())).await.into();
    let plan = plan("nested");
    connection.declare(&plan).await.unwrap();
    let queue = plan.name.clone();
    blocking(move || {
        let mut client = Handwriting::connect(&amqp_url());
        for letter in [b"A", b"F"] {
            // What is before the value of a level, in which it is; from the innermost to the outermost.
            let name = if letter == b"F" { short(b"") } else { Vec::new() };
            let (mut levels, mut length) = (vec![[&letter[..], &long(b"")].concat()], 5);
            for _ in 0..LEVELS {
                let inside = u32::try_from(length + name.len()).unwrap().to_be_bytes();
                let level = [&letter[..], &inside, &name].concat();
                length += level.len();
                levels.push(level);
            }
            let value = levels.into_iter().rev().flatten().collect();
            let table = [short(b"deep"), value, short(b"x"), b"S".to_vec(), long(b"y")].concat();
            client.publish("", queue.as_bytes(), HEADERS, &long(&table), b"nested");
        }
        client.close();
    })
    .await;
    publish_all(&connection, &plan, 0..10).await;

    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    for _ in 0..12 {
        let delivery = next(&mut consumer).await;
        assert!(!delivery.redelivered, "no connection was lost");
        if *delivery.message.body == *b"nested" {
            assert_eq!(delivery.message.headers.text("x"), Some("y"));
            assert!(delivery.message.headers.value("deep").is_none());
        }
        ack(delivery).await;
    }
    stranger.until_ready(&plan.name, 0).await;
}

async fn settle_dead(delivery: mmate_core::transport::Delivery) {
    crate::support::settle(delivery, bury()).await;
}

/// F3
#[tokio::test]
async fn odd_and_missing_properties_and_an_empty_body_are_accepted() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let plan = plan("odd");
    connection.declare(&plan).await.unwrap();
    stranger.publish(&plan.name, BasicProperties::default(), b"").await;
    let odd = BasicProperties::default().with_timestamp(u64::MAX).with_content_type("".into());
    stranger.publish(&plan.name, odd, b"odd").await;
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    let bare = next(&mut consumer).await;
    assert_eq!(bare.message.properties, mmate_core::message::Properties::default());
    assert!(bare.message.headers.is_empty() && bare.message.body.is_empty());
    ack(bare).await;
    let odd = next(&mut consumer).await;
    assert_eq!(odd.message.properties.timestamp, None);
    assert_eq!(odd.message.properties.content_type.as_deref(), Some(""));
    assert!(!odd.message.properties.persistent);
    ack(odd).await;
}

/// Nobody else's headers are taken for ours.
#[tokio::test]
async fn headers_of_ours_with_nonsense_in_them_are_taken_for_none() {
    let connection = connect(shared()).await;
    let plan = plan("nonsense");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    let mut publication = event(&plan, "1");
    let headers = &mut publication.message.headers;
    headers.insert("x-mmate-attempts", "many");
    headers.insert("x-mmate-deferrals", -5_i64);
    headers.insert("x-mmate-exchange", "somewhere");
    headers.insert("x-mmate-routing-key", "else");
    connection.publish(publication).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.failed_attempts, delivery.deferrals), (0, 0));
    assert_eq!(delivery.exchange, "mmate.events", "it came by an exchange, and not by the queue");
    let settled =
        delivery.settle(Settlement::Retry { after: Duration::ZERO, error: String::new() });
    assert!(!settled.await.is_lost());
    let again = next(&mut consumer).await;
    assert_eq!((again.failed_attempts, again.deferrals), (1, 0));
    assert_eq!(again.exchange, "mmate.events");
    ack(again).await;
}
