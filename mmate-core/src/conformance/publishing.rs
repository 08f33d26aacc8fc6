//! What a service's handlers publish, and what goes on with it.

use super::Harness;
use super::service::{
    Deferrals, Heard, RETRY_DELAY, publish, queue_of, run, start, stop, subscription,
};
use super::stage::{Stage, ack, soon};
use crate::handler::Attempt;
use crate::message::{Envelope, Meta, Outgoing};
use crate::outcome::{HandlerError, Outcome, Permanent};
use crate::publisher::Publisher;
use crate::service::Service;
use crate::subscription::Subscription;
use crate::transport::PublishError;

/// A conversation is kept together, and knows what caused what.
pub async fn what_a_handler_publishes_belongs_to_what_it_handles<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let (invoiced, topic) = (say.clone(), stage.name("invoice"));
    let order = move |meta: Meta, publisher: Publisher| {
        let _ = say.send((meta.id, meta.correlation_id, None));
        let topic = topic.clone();
        async move {
            publisher.publish(Outgoing::event(topic, "Invoice", "an invoice")).await?;
            Ok::<(), HandlerError>(())
        }
    };
    let invoice = move |meta: Meta, envelope: Envelope| {
        assert_eq!(meta.correlation_id, envelope.correlation_id);
        let _ = invoiced.send((meta.id, meta.correlation_id, envelope.causation_id));
        async { Ok::<(), HandlerError>(()) }
    };
    let service = Service::new(stage.name("service"))
        .subscribe(subscription(&stage, &["order"]).handler(order))
        .subscribe(Subscription::per_service("r", [stage.name("invoice")]).handler(invoice));
    let running = run(&stage, service).await;
    publish(&stage, &running, "order", 1).await;

    let (order_id, order_conversation, _) = heard.next().await;
    let (invoice_id, invoice_conversation, invoice_cause) = heard.next().await;
    assert!(order_id.is_some() && order_conversation.is_some());
    assert_eq!(invoice_conversation, order_conversation);
    assert_eq!(invoice_cause, order_id);
    assert_ne!(invoice_id, order_id);
    stop(running).await;
}

/// S28: whoever receives what a retried handler published can tell that it is the same.
pub async fn a_second_attempt_publishes_the_same_ids_again<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let topic = stage.name("out");
    let outbound = stage.queue("out", &["out"]).await;
    let handler = move |Attempt(attempt): Attempt, publisher: Publisher| {
        let (say, topic) = (say.clone(), topic.clone());
        async move {
            let first = publisher.publish(Outgoing::event(topic.clone(), "Out", &1)).await?;
            let second = publisher.publish(Outgoing::event(topic, "Out", &2)).await?;
            let _ = say.send([first, second]);
            if attempt == 1 { Err(HandlerError::retryable("once more")) } else { Ok(()) }
        }
    };
    let running = start(&stage, "service", subscription(&stage, &["in"]).handler(handler)).await;
    publish(&stage, &running, "in", 1).await;
    let (before, after) = (heard.next().await, heard.next().await);
    assert_eq!(before, after);
    assert_ne!(before[0], before[1]);
    stage.until_ready(&outbound, 4).await;
    stop(running).await;
}

/// S28: in their order, with the same ids in a second attempt; one that fails fails alone.
pub async fn many_messages_are_published_at_once_and_each_has_its_own_result<H: Harness>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let outbound = stage.queue("outbound", &["out"]).await;
    let (say, mut heard) = Heard::new();
    let (out, nowhere) = (stage.name("out"), stage.name("nowhere"));
    let handler = move |Attempt(attempt): Attempt, publisher: Publisher| {
        let (say, out, nowhere) = (say.clone(), out.clone(), nowhere.clone());
        async move {
            let to = |n: u64| if n == 7 { nowhere.clone() } else { out.clone() };
            let messages: Vec<_> = (0..50).map(|n| Outgoing::event(to(n), "Out", &n)).collect();
            let results = publisher.publish_all(messages).await;
            let _ = say.send(results);
            if attempt == 1 { Err(HandlerError::retryable("once more")) } else { Ok(()) }
        }
    };
    let running = start(&stage, "service", subscription(&stage, &["in"]).handler(handler)).await;
    publish(&stage, &running, "in", 1).await;
    let (first, second) = (heard.next().await, heard.next().await);
    assert_eq!(first.len(), 50);
    for (n, (first, second)) in first.iter().zip(&second).enumerate() {
        match (first, second) {
            (Ok(first), Ok(second)) => assert_eq!(first, second),
            (Err(PublishError::Unroutable { .. }), Err(_)) => assert_eq!(n, 7),
            other => panic!("message {n}: {other:?}"),
        }
    }
    let mut inbox = stage.inbox(&outbound).await;
    for (n, expected) in first.iter().enumerate().filter(|(n, _)| *n != 7) {
        let arrived = inbox.next().await;
        let id = arrived.message.properties.message_id.clone();
        assert_eq!(id.as_deref(), expected.as_ref().ok().map(|id| id.as_str()), "message {n}");
        ack(arrived).await;
    }
    stop(running).await;
}

/// The trace and the headers that a service names go on: through retry and deferral, into what is
/// published, and with a dead letter. Nothing else goes on.
pub async fn a_trace_and_named_headers_go_on<H: Harness>(harness: &H) {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let stage = Stage::new(harness).await;
    let queue = queue_of(&stage);
    let outbound = stage.queue("outbound", &["out"]).await;
    let mut inbox = stage.inbox(&outbound).await;
    let out = stage.name("out");
    let handler =
        move |Attempt(attempt): Attempt, Deferrals(deferrals): Deferrals, by: Publisher| {
            let out = out.clone();
            async move {
                if attempt == 1 {
                    return Err(HandlerError::retryable("once more"));
                }
                if deferrals == 0 {
                    return Ok(Outcome::Defer { after: RETRY_DELAY });
                }
                by.publish(Outgoing::event(out, "Out", &0).header("locale", "de")).await?;
                Err("never").permanent()
            }
        };
    let subscription = subscription(&stage, &["in"]).handler(handler);
    let service = Service::new(stage.name("service"))
        .propagate_headers(["tenant", "locale"])
        .subscribe(subscription);
    let running = run(&stage, service).await;
    let event = Outgoing::event(stage.name("in"), "In", &0)
        .header("traceparent", TRACE)
        .header("tracestate", "shop=1")
        .header("tenant", "acme")
        .header("locale", "en")
        .header("secret", "none of the others' business");
    soon("publishing", running.publisher().publish(event)).await.expect("the event is published");

    let published = inbox.next().await;
    let headers = &published.message.headers;
    assert_eq!(headers.text("traceparent"), Some(TRACE));
    assert_eq!(headers.text("tracestate"), Some("shop=1"));
    assert_eq!(headers.text("tenant"), Some("acme"));
    assert_eq!(headers.text("locale"), Some("de"), "what the handler says counts");
    assert_eq!(headers.text("secret"), None);
    let dead = stage.dead_letters(&queue).await.next().await;
    assert_eq!(dead.message.headers.text("traceparent"), Some(TRACE));
    assert_eq!(dead.message.headers.text("secret"), Some("none of the others' business"));
    stop(running).await;
}
