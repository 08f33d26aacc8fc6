//! What messages are recognised by, and what they contain.

use mmate_core::message::Message;
use mmate_core::transport::{Destination, Publication};
use mmate_core::{Running, Topic, Transport};
use mmate_idempotency::{Fingerprint, Key, MissingId};

use crate::databases::By;
use crate::house::{House, counts_when, ended, everywhere, just_the_effect, stop};

everywhere! {
    a_message_without_an_id_is_dead_lettered,
    a_message_without_an_id_may_be_known_by_its_content,
    a_message_without_an_id_may_run_unprotected_and_is_counted,
    another_content_under_the_same_id_is_dead_lettered_as_a_conflict,
    the_same_message_with_a_new_timestamp_is_no_conflict,
    what_is_not_compared_is_no_conflict,
    a_whole_body_may_be_compared,
    ids_that_differ_in_property_and_body_are_malformed,
    a_key_may_come_from_a_header,
    a_key_may_be_conversation_and_type,
    a_key_function_that_fails_dead_letters_and_the_consumer_lives,
    a_key_that_cannot_be_one_is_dead_lettered,
}

async fn start(house: &House, by: By) -> Running {
    let subscription = house.guard_with(house.builder(), just_the_effect(), by, |t| t).await;
    house.start([subscription]).await
}

/// Publishes a message as a stranger would, with nothing but a body.
pub(crate) async fn publish_raw(house: &House, mut change: impl FnMut(&mut Message), body: &str) {
    let connection = house.broker.connect("stranger").await.unwrap();
    let mut message = Message::new(body.to_owned());
    change(&mut message);
    let topic = Topic::new(house.topic()).unwrap();
    let destination = Destination::Exchange { name: "mmate.events".to_owned(), topic };
    connection.publish(Publication::new(destination, message)).await.unwrap();
    connection.close().await;
}

fn envelope(id: &str, timestamp: &str, text: &str) -> String {
    format!(
        "{{\"id\":\"{id}\",\"type\":\"Thing\",\"timestamp\":\"{timestamp}\",\"payload\":\"{text}\"}}"
    )
}

/// S32
async fn a_message_without_an_id_is_dead_lettered(house: House) {
    let running = house.instance(just_the_effect()).await;
    publish_raw(&house, |_| {}, "\"no envelope\"").await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 1).await;
    assert_eq!((counts.dead_lettered, counts.retried), (1, 0));
    assert_eq!(house.effects().await.len(), 0);
    stop([running]).await;
}

/// S32: never a random id.
async fn a_message_without_an_id_may_be_known_by_its_content(house: House) {
    // The key is to come from a header that is not there.
    let by = By { key: Key::header("request"), missing: MissingId::FromContent, ..By::default() };
    let running = start(&house, by).await;
    for (id, text) in [("a", "one"), ("b", "one"), ("c", "two")] {
        running.publisher().publish(house.message_with(id, text)).await.unwrap();
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 3).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (2, 1));
    stop([running]).await;
}

/// S32
async fn a_message_without_an_id_may_run_unprotected_and_is_counted(house: House) {
    let by = By { key: Key::header("request"), missing: MissingId::Unprotected, ..By::default() };
    let running = start(&house, by).await;
    for _ in 0..2 {
        house.publish(running.publisher(), "a").await;
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 2).await;
    assert_eq!(counts.unprotected, 2);
    assert_eq!(house.effects_of("a").await, 2);
    stop([running]).await;
}

/// S33, F49
async fn another_content_under_the_same_id_is_dead_lettered_as_a_conflict(house: House) {
    let running = start(&house, By::default()).await;
    for (sent, text) in ["one", "two", "one"].into_iter().enumerate() {
        running.publisher().publish(house.message_with("a", text)).await.unwrap();
        counts_when(&[&running], |counts| ended(counts) == sent as u64 + 1).await;
    }
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.conflicts, counts.duplicates.total()), (1, 1, 1));
    assert_eq!(house.effects_of("a").await, 1);
    stop([running]).await;
}

/// S33
async fn the_same_message_with_a_new_timestamp_is_no_conflict(house: House) {
    let running = start(&house, By::default()).await;
    for timestamp in ["2026-11-21T09:01:13Z", "2026-11-21T09:01:14Z"] {
        publish_raw(&house, |_| {}, &envelope("a", timestamp, "one")).await;
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 2).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 1));
    stop([running]).await;
}

/// S33
async fn what_is_not_compared_is_no_conflict(house: House) {
    let running = start(&house, By { fingerprint: Fingerprint::Off, ..By::default() }).await;
    for text in ["one", "two"] {
        running.publisher().publish(house.message_with("a", text)).await.unwrap();
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 2).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 1));
    stop([running]).await;
}

/// S33: body by body, a new timestamp is another content.
async fn a_whole_body_may_be_compared(house: House) {
    let running = start(&house, By { fingerprint: Fingerprint::Body, ..By::default() }).await;
    let times = ["2026-11-21T09:01:13Z", "2026-11-21T09:01:13Z", "2026-11-21T09:01:14Z"];
    for (sent, timestamp) in times.into_iter().enumerate() {
        publish_raw(&house, |_| {}, &envelope("a", timestamp, "one")).await;
        counts_when(&[&running], |counts| ended(counts) == sent as u64 + 1).await;
    }
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.total(), counts.conflicts), (1, 1, 1));
    stop([running]).await;
}

/// S36
async fn ids_that_differ_in_property_and_body_are_malformed(house: House) {
    let running = start(&house, By::default()).await;
    let body = envelope("a", "2026-11-21T09:01:13Z", "one");
    let other = |message: &mut Message| message.properties.message_id = Some("b".to_owned());
    publish_raw(&house, other, &body).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 1).await;
    assert_eq!((counts.dead_lettered, counts.retried), (1, 0));
    stop([running]).await;
}

/// S36
async fn a_key_may_come_from_a_header(house: House) {
    let running = start(&house, By { key: Key::header("request"), ..By::default() }).await;
    for (id, request) in [("a", Some("1")), ("b", Some("1")), ("c", Some("2")), ("d", None)] {
        let mut message = house.message(id);
        if let Some(request) = request {
            message = message.header("request", request);
        }
        running.publisher().publish(message).await.unwrap();
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 4).await;
    assert_eq!((counts.succeeded, counts.duplicates.total(), counts.dead_lettered), (2, 1, 1));
    stop([running]).await;
}

/// S35: only if it is asked for.
async fn a_key_may_be_conversation_and_type(house: House) {
    let by = By { key: Key::correlation_and_type(), ..By::default() };
    let running = start(&house, by).await;
    for (id, conversation) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let message = house.message(id).correlation_id(conversation.parse().unwrap());
        running.publisher().publish(message).await.unwrap();
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 3).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (2, 1));
    stop([running]).await;
}

/// S36
async fn a_key_function_that_fails_dead_letters_and_the_consumer_lives(house: House) {
    let key = Key::from_fn(|context| {
        let id = context.message_id().ok_or("no id")?.to_string();
        if id == "bad" { Err("a bad id") } else { Ok(id) }
    });
    let running = start(&house, By { key, ..By::default() }).await;
    for id in ["a", "bad", "b", "bad", "c"] {
        house.publish(running.publisher(), id).await;
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 5).await;
    assert_eq!((counts.succeeded, counts.dead_lettered, counts.retried), (3, 2, 0));
    stop([running]).await;
}

/// S36: refused before the store is asked.
async fn a_key_that_cannot_be_one_is_dead_lettered(house: House) {
    let key = Key::from_fn(|context| {
        let id = context.message_id().ok_or("no id")?;
        Ok::<_, &str>(match id.as_str() {
            "empty" => String::new(),
            "nul" => "a\0b".to_owned(),
            "long" => "x".repeat(256),
            other => other.to_owned(),
        })
    });
    let running = start(&house, By { key, ..By::default() }).await;
    for id in ["empty", "nul", "long", "fine"] {
        house.publish(running.publisher(), id).await;
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 4).await;
    assert_eq!((counts.succeeded, counts.dead_lettered), (1, 3));
    stop([running]).await;
}
