//! Traces of OpenTelemetry in the headers of messages.

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::TraceParent;
use crate::message::Headers;

/// Makes the span a part of the trace that the headers name, if they name one.
pub(super) fn continue_trace(span: &Span, headers: &Headers) {
    let parent = opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.extract(&Carried(headers))
    });
    if parent.span().span_context().is_valid() {
        // It fails where no layer of OpenTelemetry listens, and then there is nothing to do.
        let _ = span.set_parent(parent);
    }
}

/// Writes the span's trace into the headers, over one that was passed on.
pub(super) fn inject(span: &Span, headers: &mut Headers) {
    let context = span.context();
    if context.span().span_context().is_valid() {
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut Carrying(headers));
        });
    }
}

/// Where the span stands in its trace, if that is recorded.
pub(super) fn place(span: &Span) -> Option<TraceParent> {
    let context = span.context();
    let place = context.span().span_context().clone();
    let (trace, id) = (place.trace_id().to_bytes(), place.span_id().to_bytes());
    TraceParent::new(trace, id, place.trace_flags().to_u8())
}

/// Links the span to a place in another trace.
pub(super) fn link(span: &Span, to: TraceParent) {
    let (trace, id, flags) = to.parts();
    let (trace, id) = (TraceId::from_bytes(trace), SpanId::from_bytes(id));
    let flags = TraceFlags::new(flags);
    span.add_link(SpanContext::new(trace, id, flags, true, TraceState::default()));
}

struct Carried<'a>(&'a Headers);

impl Extractor for Carried<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.text(key)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

struct Carrying<'a>(&'a mut Headers);

impl Injector for Carrying<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key, value);
    }
}
