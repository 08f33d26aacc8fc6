//! The wire format: what mmate for Go sends is understood, and what we send is as documented.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use mmate_core::message::wire;
use mmate_core::transport::{Destination, Publication};
use mmate_core::{
    Body, Context, CorrelationId, Envelope, FromContext, HandlerError, HeaderValue, InProcess,
    Json, Message, MessageId, MessageKind, Meta, Outgoing, Publisher, Service, Subscription,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Messages captured from mmate for Go on a real broker.
fn golden() -> Vec<Value> {
    let captured: Value =
        serde_json::from_str(include_str!("fixtures/mmate-go-wire.json")).unwrap();
    captured["messages"].as_array().unwrap().clone()
}

/// A golden message as a broker would hand it over.
fn as_received(golden: &Value) -> Message {
    let mut message = Message::new(serde_json::to_vec(&golden["body"]).unwrap());
    message.properties.content_type =
        golden["properties"]["content_type"].as_str().map(str::to_owned);
    message.properties.persistent = golden["properties"]["delivery_mode"] == 2;
    for (name, header) in golden["headers"].as_object().unwrap() {
        let value = match &header["value"] {
            Value::String(text) => HeaderValue::Text(text.clone()),
            Value::Number(n) => HeaderValue::Int(n.as_i64().unwrap()),
            other => panic!("a golden header of a new type: {other}"),
        };
        message.headers.insert(name, value);
    }
    message
}

#[test]
fn golden_messages_decode_to_their_ids_types_kinds_correlations_and_payloads() {
    let golden = golden();
    assert_eq!(golden.len(), 7);
    for expected in golden {
        let message = as_received(&expected);
        let meta = Meta::read(&message).unwrap();
        let envelope = Envelope::from_json(message.body.clone()).unwrap();
        let body = &expected["body"];

        assert_eq!(meta.id.as_ref().unwrap().as_str(), body["id"]);
        assert_eq!(meta.id.unwrap(), envelope.id);
        assert_eq!(meta.message_type.unwrap(), body["type"].as_str().unwrap());
        assert_eq!(envelope.message_type, body["type"].as_str().unwrap());
        assert_eq!(
            meta.kind.unwrap().as_str(),
            expected["headers"]["x-message-kind"]["value"].as_str().unwrap()
        );
        let correlation = body["correlationId"].as_str();
        assert_eq!(meta.correlation_id.as_ref().map(CorrelationId::as_str), correlation);
        assert_eq!(envelope.correlation_id.as_ref().map(CorrelationId::as_str), correlation);
        assert_eq!(meta.source.as_deref(), Some("mmate-go"));
        assert_eq!(envelope.payload::<Value>().unwrap(), body["payload"]);
        assert_eq!(envelope.headers.len(), body["headers"].as_object().unwrap().len());
        assert!(envelope.timestamp.is_some());
        let in_payload = body["payload"].get("replyTo").and_then(Value::as_str);
        assert_eq!(envelope.reply_to.as_deref(), in_payload);
    }
}

/// What arrives on the broker for a message published by a service.
async fn published(outgoing: Outgoing, patterns: [&str; 1], exchange: &str) -> (Message, String) {
    let (sender, mut received) = mpsc::unbounded_channel();
    struct Raw(Message, String);
    impl FromContext for Raw {
        async fn from_context(context: &Context) -> Result<Self, HandlerError> {
            Ok(Self(context.message().clone(), context.routing_key().to_owned()))
        }
    }
    let broker = InProcess::new();
    let running = Service::new("listener")
        .subscribe(Subscription::shared("q").topics_of(exchange, patterns).handler(
            move |raw: Raw| {
                let sender = sender.clone();
                async move {
                    sender.send((raw.0, raw.1)).unwrap();
                    Ok::<_, HandlerError>(())
                }
            },
        ))
        .start(broker.clone())
        .await
        .unwrap();
    let publisher = Publisher::connect(&broker, "orders").await.unwrap();
    publisher.publish(outgoing).await.unwrap();
    let message = received.recv().await.unwrap();
    running.stop().await.unwrap();
    message
}

#[tokio::test]
async fn an_event_has_the_documented_properties_headers_and_body() {
    let event = Outgoing::event("order.created.us-west", "OrderCreated", &json!({"orderId": 7}))
        .id("id-1".parse().unwrap())
        .correlation_id("chain-1".parse().unwrap())
        .header("tenant", "acme")
        .reply_to("replies");
    let (message, topic) = published(event, ["order.*.*"], wire::EVENTS).await;

    assert_eq!(topic, "order.created.us-west");
    let properties = &message.properties;
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert!(properties.persistent);
    assert_eq!(properties.message_id.as_deref(), Some("id-1"));
    assert_eq!(properties.correlation_id.as_deref(), Some("chain-1"));
    assert_eq!(properties.message_type.as_deref(), Some("OrderCreated"));
    assert_eq!(properties.reply_to.as_deref(), Some("replies"));
    assert_eq!(properties.app_id.as_deref(), Some("orders"));
    assert!(properties.timestamp.is_some());
    for (name, value) in [
        ("x-message-id", "id-1"),
        ("x-message-type", "OrderCreated"),
        ("x-message-kind", "event"),
        ("x-correlation-id", "chain-1"),
        ("x-source", "orders"),
        ("x-version", "1.0"),
        ("tenant", "acme"),
    ] {
        assert_eq!(message.headers.text(name), Some(value), "{name}");
    }

    let body: Value = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(body["id"], "id-1");
    assert_eq!(body["type"], "OrderCreated");
    assert_eq!(body["correlationId"], "chain-1");
    assert_eq!(body["replyTo"], "replies");
    assert_eq!(body["headers"], json!({"tenant": "acme"}));
    assert_eq!(body["payload"], json!({"orderId": 7, "replyTo": "replies"}));
    assert!(body["timestamp"].as_str().unwrap().ends_with('Z'));
    assert!(body.get("causationId").is_none());
}

#[tokio::test]
async fn a_command_and_a_query_go_to_their_exchanges_under_their_keys() {
    let command = Outgoing::command("orders", "CreateOrder", &json!({}));
    let (message, topic) = published(command, ["cmd.orders.*"], wire::COMMANDS).await;
    assert_eq!(topic, "cmd.orders.CreateOrder");
    assert_eq!(Meta::read(&message).unwrap().kind, Some(MessageKind::Command));

    let query = Outgoing::query("GetOrder", &json!({}));
    let (message, topic) = published(query, ["qry.*"], wire::QUERIES).await;
    assert_eq!(topic, "qry.GetOrder");
    assert_eq!(Meta::read(&message).unwrap().kind, Some(MessageKind::Query));
}

#[tokio::test]
async fn a_users_header_does_not_replace_one_of_ours() {
    let event = Outgoing::event("a.b.c", "T", &()).header("x-message-id", "forged");
    let (message, _) = published(event, ["#"], wire::EVENTS).await;
    let meta = Meta::read(&message).unwrap();
    assert_ne!(meta.id.unwrap().as_str(), "forged");
}

#[test]
fn keys_of_any_case_are_read_and_an_exact_one_wins() {
    let envelope = Envelope::from_json(
        &br#"{"Id":"x","TYPE":"T","id":"y","ID":"z","CorrelationID":"c","Payload":[1]}"#[..],
    )
    .unwrap();
    assert_eq!(envelope.id.as_str(), "y");
    assert_eq!(envelope.message_type, "T");
    assert_eq!(envelope.correlation_id.as_ref().unwrap().as_str(), "c");
    assert_eq!(&envelope.raw_payload()[..], b"[1]");
}

#[test]
fn unknown_fields_odd_times_and_empty_ids_are_put_up_with() {
    for time in ["\"yesterday\"", "7", "null", "\"\""] {
        let json = format!(
            r#"{{"id":"a","type":"T","timestamp":{time},"correlationId":"","replyTo":null,
               "headers":null,"future":{{"a":[1,2]}},"payload":null}}"#
        );
        let envelope = Envelope::from_json(json).unwrap();
        assert_eq!(envelope.timestamp, None, "{time}");
        assert_eq!(envelope.correlation_id, None);
        assert_eq!(&envelope.raw_payload()[..], b"null");
    }
    let offset = r#"{"id":"a","type":"T","timestamp":"2026-11-21T10:01:13.5+01:00","payload":1}"#;
    let utc = r#"{"id":"a","type":"T","timestamp":"2026-11-21T09:01:13.500Z","payload":1}"#;
    assert_eq!(
        Envelope::from_json(offset).unwrap().timestamp.unwrap(),
        Envelope::from_json(utc).unwrap().timestamp.unwrap()
    );
}

#[test]
fn what_is_no_envelope_is_told_apart() {
    for (body, told) in [
        ("nonsense", "the body is not a message envelope"),
        ("[]", "the body is not a message envelope"),
        (r#"{"type":"T","payload":1}"#, "the envelope has no \"id\""),
        (r#"{"id":"a","payload":1}"#, "the envelope has no \"type\""),
        (r#"{"id":"a","type":"T"}"#, "the envelope has no \"payload\""),
        (r#"{"id":"a\u0000","type":"T","payload":1}"#, "the envelope's \"id\" is not usable"),
    ] {
        assert_eq!(Envelope::from_json(body).unwrap_err().to_string(), told, "{body}");
    }
}

#[test]
fn an_envelope_survives_the_way_out_and_back() {
    let mut envelope =
        Envelope::new(MessageId::generate(), "T", &json!({"big": 9_007_199_254_740_993_u64}))
            .unwrap();
    envelope.correlation_id = Some("c".parse().unwrap());
    envelope.causation_id = Some("cause".parse().unwrap());
    envelope.headers.insert("n", 7_i64);
    let back = Envelope::from_json(envelope.to_json()).unwrap();
    assert_eq!(back.id, envelope.id);
    assert_eq!(back.causation_id, envelope.causation_id);
    assert_eq!(back.headers, envelope.headers);
    assert_eq!(&back.raw_payload()[..], br#"{"big":9007199254740993}"#);
    let difference = envelope.timestamp.unwrap().duration_since(back.timestamp.unwrap());
    assert!(difference.unwrap_or_default().as_micros() < 1);
}

/// A message straight from a broker, with a body of one's own.
fn raw(topic: &str, body: &str) -> Publication {
    let exchange =
        Destination::Exchange { name: wire::EVENTS.to_owned(), topic: topic.parse().unwrap() };
    Publication::new(exchange, Message::new(Bytes::copy_from_slice(body.as_bytes())))
}

#[tokio::test]
async fn an_id_that_stands_in_the_body_only_is_found_and_one_that_contradicts_is_malformed() {
    use mmate_core::Transport as _;
    let (sender, mut received) = mpsc::unbounded_channel();
    let broker = InProcess::new();
    let running = Service::new("s")
        .subscribe(Subscription::per_service("a", ["#"]).handler(
            move |meta: Meta, Json(_): Json<Value>, Body(_): Body| {
                let sender = sender.clone();
                async move {
                    sender.send(meta).unwrap();
                    Ok::<_, HandlerError>(())
                }
            },
        ))
        .start(broker.clone())
        .await
        .unwrap();
    let connection = broker.connect("raw").await.unwrap();
    let body = r#"{"id":"in-body","type":"T","correlationId":"c","payload":1}"#;
    connection.publish(raw("a.b.c", body)).await.unwrap();
    let meta = received.recv().await.unwrap();
    assert_eq!(meta.id.unwrap().as_str(), "in-body");
    assert_eq!(meta.message_type.as_deref(), Some("T"));
    assert_eq!(meta.correlation_id.unwrap().as_str(), "c");

    let mut contradicting = raw("a.b.c", body);
    contradicting.message.properties.message_id = Some("in-property".to_owned());
    connection.publish(contradicting).await.unwrap();
    broker.idle().await;
    let [letter] = &broker.dead_letters("s.a")[..] else { panic!("not one dead letter") };
    assert_eq!(letter.headers.text(wire::REASON), Some("malformed"));
    running.stop().await.unwrap();
}
