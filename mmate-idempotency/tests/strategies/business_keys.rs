//! Keys from the payload, and keys of several parts.

use mmate_core::{HandlerError, Outgoing, Running};
use mmate_idempotency::{Fingerprint, Key, MissingId};
use serde_json::{Value, json};

use crate::databases::By;
use crate::house::{House, counts_when, ended, in_process, stop};

in_process! {
    a_key_may_come_from_the_payload,
    a_message_with_nothing_there_is_one_without_an_id,
    keys_that_look_alike_are_distinct_or_refused,
    parts_of_a_key_are_joined_without_ambiguity,
    a_message_that_lacks_a_part_of_its_key_is_one_without_an_id,
    a_body_that_is_no_envelope_has_no_key_in_it,
}

/// Starts a service with that key; contents are not compared.
async fn start(house: &House, key: Key, missing: MissingId) -> Running {
    let handler = async || Ok::<(), HandlerError>(());
    let by = By { key, missing, fingerprint: Fingerprint::Off, ..By::default() };
    let subscription = house.guarded(house.builder(), by).await.handler(handler);
    house.start([subscription]).await
}

/// Publishes messages with ids of their own and these payloads, each after the one before.
async fn publish(house: &House, running: &Running, payloads: &[Value]) {
    let before = ended(&running.stats().total());
    for (n, payload) in payloads.iter().enumerate() {
        let message = Outgoing::event(house.topic(), "Thing", payload).id_text(format!("m-{n}"));
        running.publisher().publish(message).await.unwrap();
        counts_when(&[running], |counts| ended(counts) == before + n as u64 + 1).await;
    }
}

/// S36: text or a whole number, by RFC 6901.
async fn a_key_may_come_from_the_payload(house: House) {
    for (pointer, payload) in [
        ("/order/id", json!({ "order": { "id": "o-1" } })),
        ("/order/id", json!({ "order": { "id": 7 } })),
        ("/order/id", json!({ "order": { "id": u64::MAX } })),
        ("/lines/1/sku", json!({ "lines": [{ "sku": "a" }, { "sku": "b" }] })),
        ("/a~1b~0c", json!({ "a/b~c": "x" })),
        ("/", json!({ "": "empty name" })),
        ("", json!("the whole payload")),
    ] {
        let running = start(&house, Key::json_pointer(pointer), MissingId::default()).await;
        publish(&house, &running, &[payload.clone(), payload]).await;
        let counts = running.stats().total();
        assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 1), "{pointer:?}");
        stop([running]).await;
    }
}

/// S32; S36: what is neither text nor a whole number is malformed.
async fn a_message_with_nothing_there_is_one_without_an_id(house: House) {
    let nothing = [json!({}), json!({ "id": null }), json!([1]), json!("text")];
    let wrong = [json!({ "id": 1.5 }), json!({ "id": 1e300 }), json!({ "id": true })];
    let wrong_too = [json!({ "id": ["a"] }), json!({ "id": { "a": 1 } }), json!({ "id": "" })];
    let running = start(&house, Key::json_pointer("/id"), MissingId::Unprotected).await;
    publish(&house, &running, &nothing).await;
    assert_eq!(running.stats().total().unprotected, 4);
    publish(&house, &running, &wrong).await;
    publish(&house, &running, &wrong_too).await;
    let counts = running.stats().total();
    assert_eq!((counts.dead_lettered, counts.retried, counts.succeeded), (6, 0, 0));
    stop([running]).await;
}

/// S36, F48
async fn keys_that_look_alike_are_distinct_or_refused(house: House) {
    let (long, nearly) = ("x".repeat(255), format!("{}y", "x".repeat(254)));
    let distinct = [
        "abc",
        "ABC",
        "abc ",
        " abc",
        "àbc",
        "a\u{300}bc",
        "ａbc",
        "🦀",
        "🦞",
        "a:b",
        "a/b",
        "%",
        "_",
        "null",
        "0",
        "00",
        &long,
        &nearly,
    ];
    let refused = ["a\0b", "a\nb", "", &"x".repeat(256), &"🦀".repeat(64)];
    let running = start(&house, Key::json_pointer("/id"), MissingId::default()).await;
    let payloads = |keys: &[&str]| keys.iter().map(|key| json!({ "id": key })).collect::<Vec<_>>();
    publish(&house, &running, &payloads(&distinct)).await;
    let fresh = distinct.len() as u64;
    assert_eq!(running.stats().total().succeeded, fresh);
    publish(&house, &running, &payloads(&distinct)).await;
    publish(&house, &running, &payloads(&refused)).await;
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.total()), (fresh, fresh));
    assert_eq!((counts.dead_lettered, counts.retried), (refused.len() as u64, 0));
    stop([running]).await;
}

/// S36: `a:b` with `c` is not `a` with `b:c`, also where a part looks like a length.
async fn parts_of_a_key_are_joined_without_ambiguity(house: House) {
    let key = Key::all([Key::json_pointer("/0"), Key::json_pointer("/1")]);
    let running = start(&house, key, MissingId::default()).await;
    let pairs = [
        ["a:b", "c"],
        ["a", "b:c"],
        ["a:", "bc"],
        ["ab", "c"],
        ["a", "bc"],
        ["", "abc"],
        ["abc", ""],
        ["1:a", "1:b"],
        ["1:a1", ":b"],
        ["", ""],
        ["0:", ""],
        ["", "0:"],
        // As many bytes as characters or not.
        ["à", "b"],
        ["a", "\u{300}b"],
    ];
    let payloads: Vec<_> = pairs.iter().map(|pair| json!(pair)).collect();
    publish(&house, &running, &payloads).await;
    publish(&house, &running, &payloads).await;
    // Both fit alone, and are too long together.
    publish(&house, &running, &[json!(["x".repeat(130), "x".repeat(130)])]).await;
    let (counts, fresh) = (running.stats().total(), pairs.len() as u64);
    assert_eq!((counts.succeeded, counts.duplicates.total()), (fresh, fresh));
    assert_eq!(counts.dead_lettered, 1);
    stop([running]).await;
}

/// S32
async fn a_message_that_lacks_a_part_of_its_key_is_one_without_an_id(house: House) {
    let key = Key::all([Key::message_id(), Key::json_pointer("/a"), Key::header("tenant")]);
    let running = start(&house, key, MissingId::default()).await;
    publish(&house, &running, &[json!({ "a": 1 }), json!({})]).await;
    assert_eq!(running.stats().total().dead_lettered, 2);
    let whole = Outgoing::event(house.topic(), "Thing", &json!({ "a": 1 })).header("tenant", "t");
    running.publisher().publish(whole.id_text("m-0")).await.unwrap();
    counts_when(&[&running], |counts| counts.succeeded == 1).await;
    stop([running]).await;
}

/// S36: the consumer goes on.
async fn a_body_that_is_no_envelope_has_no_key_in_it(house: House) {
    let running = start(&house, Key::json_pointer("/id"), MissingId::Unprotected).await;
    crate::keys::publish_raw(&house, |_| {}, "no envelope").await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 1).await;
    assert_eq!((counts.dead_lettered, counts.retried, counts.unprotected), (1, 0, 0));
    publish(&house, &running, &[json!({ "id": 1 })]).await;
    assert_eq!(running.stats().total().succeeded, 1);
    stop([running]).await;
}
