//! Traces of OpenTelemetry, from a publisher through a handler to what that publishes.

#![cfg(feature = "otel")]

use std::sync::{Mutex, PoisonError};

use mmate_core::transport::Publication;
use mmate_core::{
    Context, HandlerError, InProcess, Middleware, Next, Outcome, Outgoing, Publisher, Service,
    Subscription, TraceParent,
};
use opentelemetry::trace::{SpanContext, SpanKind, Status, TracerProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

/// A message that is prepared by a handler and published later.
static KEPT: Mutex<Option<Publication>> = Mutex::new(None);

async fn bill(publisher: Publisher) -> Result<(), HandlerError> {
    publisher.publish(Outgoing::event("invoice.created.eu", "InvoiceCreated", &1)).await?;
    let receipt = Outgoing::event("receipt.created.eu", "ReceiptCreated", &1).allow_unroutable();
    let (_, kept) = publisher.prepare(receipt.id_text("receipt-7"))?;
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    Ok(())
}

async fn refuse() -> Result<(), HandlerError> {
    Err(HandlerError::permanent("no such customer"))
}

/// Where the work was done before, as a strategy against duplicates knows it.
const BEFORE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What it found of the place of the handling.
static PLACE: Mutex<Option<TraceParent>> = Mutex::new(None);

/// Links the handling to what was before.
struct Links;

#[async_trait::async_trait]
impl Middleware for Links {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = context.trace_parent();
        context.link_trace(BEFORE.parse().map_err(HandlerError::permanent)?);
        next.run(context).await
    }
}

/// What OpenTelemetry's conventions call an attribute.
fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name)?;
    Some(found.value.to_string())
}

#[tokio::test]
async fn a_handling_is_a_child_of_the_publication_and_the_trace_goes_on() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tests"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();

    let broker = InProcess::new();
    let running = Service::new("billing")
        .subscribe(
            Subscription::per_service("bill", ["order.paid.*"]).middleware(Links).handler(bill),
        )
        .subscribe(Subscription::per_service("book", ["invoice.created.*"]).handler(refuse))
        .start(broker.clone())
        .await
        .unwrap();
    let paid = Outgoing::event("order.paid.eu", "OrderPaid", &1).id_text("order-7");
    let request = tracing::info_span!("request");
    running.publisher().publish(paid).instrument(request).await.unwrap();
    broker.idle().await;
    let kept = KEPT.lock().unwrap().take().unwrap();
    running.publisher().publish_prepared(kept).await.unwrap();
    running.stop().await.unwrap();
    provider.force_flush().unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let span = |name: &str| {
        spans.iter().find(|s| s.name == name).unwrap_or_else(|| {
            panic!("no span {name} among {:?}", spans.iter().map(|s| &s.name).collect::<Vec<_>>())
        })
    };
    let way = [
        span("request"),
        spans
            .iter()
            .find(|s| {
                attribute(s, "messaging.message.id").as_deref() == Some("order-7")
                    && s.span_kind == SpanKind::Producer
            })
            .unwrap(),
        span("process billing.bill"),
    ];
    for (parent, child) in way.iter().zip(&way[1..]) {
        assert_eq!(child.parent_span_id, parent.span_context.span_id(), "{}", child.name);
    }
    let trace = way[0].span_context.trace_id();
    let [_, _, handled] = way;
    assert_eq!(handled.span_kind, SpanKind::Consumer);
    for (name, value) in [
        ("messaging.system", "in_process"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "billing.bill"),
        ("messaging.destination.routing_key", "order.paid.eu"),
        ("messaging.consumer.group.name", "bill"),
        ("messaging.message.id", "order-7"),
        ("messaging.message.conversation_id", "order-7"),
        ("mmate.outcome", "succeeded"),
    ] {
        assert_eq!(attribute(handled, name).as_deref(), Some(value), "{name}");
    }
    let place = PLACE.lock().unwrap().take().unwrap();
    let (own, linked) = (&handled.span_context, &handled.links[0].span_context);
    let named = |c: &SpanContext| format!("00-{}-{}-01", c.trace_id(), c.span_id());
    assert_eq!((place.to_string(), named(linked)), (named(own), BEFORE.to_owned()));
    let later = spans
        .iter()
        .find(|s| attribute(s, "messaging.message.id").as_deref() == Some("receipt-7"))
        .unwrap();
    assert_eq!(later.parent_span_id, handled.span_context.span_id(), "of who prepared it");
    let refused = span("process billing.book");
    assert_eq!(refused.span_context.trace_id(), trace, "one trace from end to end");
    assert_eq!(attribute(refused, "error.type").as_deref(), Some("permanent"));
    assert!(matches!(refused.status, Status::Error { .. }), "{:?}", refused.status);
}
