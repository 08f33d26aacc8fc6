//! What is asked over HTTP.

use serde_json::{Value, json};

use crate::scene::{Scene, assert_stored, json_of};
use mmate_test_support::until;

#[test]
fn what_is_no_event_is_refused_with_the_reason() {
    let scene = Scene::new();
    let producer = scene.producer();
    let too_long = json!({"event_id": "x".repeat(256), "payload": 1}).to_string();
    for (body, reason) in [
        ("", "EOF"),
        ("nonsense", "expected"),
        ("[1, 2]", "invalid type"),
        (r#"{"payload": 1}"#, "missing field `event_id`"),
        (r#"{"event_id": "a"}"#, "missing field `payload`"),
        (r#"{"event_id": 7, "payload": 1}"#, "expected a string"),
        (r#"{"event_id": "", "payload": 1}"#, "an id must not be empty"),
        (r#"{"event_id": "a\u0000b", "payload": 1}"#, "no control characters"),
        (&too_long, "at most 255 bytes, this one has 256"),
        (r#"{"event_id": "a", "payload": 1, "paylaod": 2}"#, "unknown field `paylaod`"),
        (r#"{"event_id": "a", "payload": }"#, "expected value"),
    ] {
        let answer = producer.post(body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let told = json_of(&answer)["error"].as_str().unwrap().to_owned();
        assert!(told.contains(reason), "{body}: {told}");
    }
    let large = json!({"event_id": "a", "payload": "x".repeat(70_000)}).to_string();
    assert_eq!(producer.post(&large).status, 413);
    // Nothing of it was published, and what is right is.
    let answer = producer.post(r#"{"event_id": "a", "payload": null}"#);
    assert_eq!((answer.status, json_of(&answer)), (202, json!({"event_id": "a", "number": 1})));
    assert_eq!(producer.metric("event_processor_published_total", ""), 1);
}

#[test]
fn what_is_stored_is_shown_in_pages_as_it_was_published() {
    let scene = Scene::new();
    let producer = scene.producer();
    let listener = scene.listener("a", &producer);
    producer.publish_numbers(0..25);
    until("the events", || listener.stored().len() == 25);
    let page = |query: &str| json_of(&listener.page(&format!("/api/events{query}")));
    let ids = |page: &Value| -> Vec<String> {
        let events = page["events"].as_array().unwrap().iter();
        events.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    };
    let (mut pages, mut query) = (Vec::new(), "?limit=10".to_owned());
    loop {
        let page = page(&query);
        pages.push(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=10&after={next}");
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    assert!(pages.concat().is_sorted());
    assert_stored(&listener, 0..25);
    // A page that ends with the last event has no next one.
    assert_eq!(page("?limit=25")["next"], Value::Null);
    assert_eq!(page("?after=zzz"), json!({"events": [], "next": null}));
    for query in ["?limit=0", "?limit=1001", "?limit=ten", "?limit=-1", "?page=2"] {
        assert_eq!(listener.page(&format!("/api/events{query}")).status, 400, "{query}");
    }

    // Ids and payloads of any kind come back byte by byte.
    let odd = r#"{ "b" : [1e400, "\u0000", null],  "a": "🦀" }"#;
    let answer = producer.post(&format!(r#"{{"event_id": "~ü 🦀&%", "payload": {odd}}}"#));
    assert_eq!(answer.status, 202, "{answer:?}");
    until("the odd event", || listener.heard() == 26);
    let body = listener.page("/api/events?after=z").body;
    assert!(body.contains(odd) && body.contains(r#""event_id":"~ü 🦀&%""#), "{body}");
}

/// S33
#[test]
fn another_payload_under_the_same_id_is_told_and_what_came_first_stays() {
    let scene = Scene::new();
    let producer = scene.producer();
    let listener = scene.listener("a", &producer);
    for payload in [1, 2, 1] {
        producer.publish("event", &json!(payload));
        let published = producer.metric("event_processor_published_total", "");
        until("the event", || listener.heard() == published);
    }
    let outcomes = ["stored", "duplicate", "conflict"].map(|word| listener.outcome(word));
    assert_eq!(outcomes, [1, 1, 1]);
    let stored = listener.stored();
    assert_eq!((stored.len(), &stored[0]["payload"]), (1, &json!(1)));
    assert!(listener.log().contains("was used before for something else"), "{}", listener.log());
}
