//! What a message carries arrives as it was sent.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::Harness;
use super::stage::{Stage, send};
use crate::message::{HeaderValue, Message, Properties};

/// Sends a message through a queue.
async fn through<H: Harness>(harness: &H, message: Message) -> Message {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    send(&*stage.connection, stage.event("a"), message).await;
    let mut received = stage.inbox(&queue).await.next().await;
    std::mem::take(&mut received.message)
}

/// The properties that the wire format has; a time is one to the second.
pub async fn every_property_survives<H: Harness>(harness: &H) {
    let mut message = Message::new("one");
    message.properties = Properties {
        content_type: Some("application/json".to_owned()),
        message_id: Some("the-id".to_owned()),
        correlation_id: Some("the-conversation".to_owned()),
        message_type: Some("OrderCreated".to_owned()),
        timestamp: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
        reply_to: Some("answers".to_owned()),
        app_id: Some("shop".to_owned()),
        priority: Some(4),
        expires_after: Some(Duration::from_secs(3600)),
        persistent: true,
    };
    let sent = message.properties.clone();
    assert_eq!(through(harness, message).await.properties, sent);
}

/// What was not set is not there: a message of a stranger is not embellished.
pub async fn a_message_without_properties_has_none<H: Harness>(harness: &H) {
    let received = through(harness, Message::new("one")).await;
    // Whether a message is kept on disk may be the queue's choice.
    let persistent = received.properties.persistent;
    let none = Properties { persistent, ..Properties::default() };
    assert_eq!(received.properties, none);
    let ours = received.headers.iter().filter(|(name, _)| name.starts_with("x-mmate-"));
    assert_eq!(ours.count(), 0, "a message that was not delayed says nothing of it");
}

/// Each type of [`HeaderValue`], and its limits.
pub async fn every_type_of_header_survives<H: Harness>(harness: &H) {
    let mut message = Message::new("one");
    let values: [(&str, HeaderValue); 11] = [
        ("text", "acme".into()),
        ("empty", "".into()),
        ("number-like", "007".into()),
        ("int", 7_i64.into()),
        ("lowest", i64::MIN.into()),
        ("highest", i64::MAX.into()),
        ("float", 0.1_f64.into()),
        ("negative", (-1e300_f64).into()),
        ("yes", true.into()),
        ("no", false.into()),
        ("bytes", HeaderValue::Bytes(Bytes::from_static(b"\x00\xff\xfe"))),
    ];
    for (name, value) in values.clone() {
        message.headers.insert(name, value);
    }
    let received = through(harness, message).await;
    for (name, value) in &values {
        assert_eq!(received.headers.value(name), Some(value), "the header {name}");
    }
}

/// A body is bytes.
pub async fn an_empty_body_and_odd_bytes_survive<H: Harness>(harness: &H) {
    let odd: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    for body in [Vec::new(), vec![0], odd] {
        let received = through(harness, Message::new(body.clone())).await;
        assert_eq!(received.body, body);
    }
}

/// A body that takes many frames.
pub async fn a_body_of_a_mebibyte_survives<H: Harness>(harness: &H) {
    let mut state = 7_u32;
    let body: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(1 << 20)
    .collect();
    let received = through(harness, Message::new(body.clone())).await;
    assert!(received.body == body, "a body of {} bytes is the same", received.body.len());
}

/// Text is UTF-8, in names too, and long where it may be.
pub async fn names_and_texts_of_any_script_survive<H: Harness>(harness: &H) {
    let mut message = Message::new("Grüße, 世界 🦀");
    message.properties.message_id = Some("é".repeat(127));
    message.headers.insert("größe", "世界 🦀\n\t\"'\\");
    message.headers.insert("long", "x".repeat(20_000));
    let received = through(harness, message.clone()).await;
    assert_eq!(received.body, message.body);
    assert_eq!(received.properties.message_id, message.properties.message_id);
    for (name, value) in &message.headers {
        assert_eq!(received.headers.value(name), Some(value), "the header {name}");
    }
}
