//! Spans, and the headers by which a trace goes from message to message.
//!
//! A message carries the trace it belongs to in the headers of the W3C's Trace Context,
//! `traceparent` and `tracestate`. What a handler publishes passes them on. With the feature `otel`
//! the spans of OpenTelemetry stand between the two: a handling is a child of the publication it
//! answers, and a publication a child of the handling that made it.

#[cfg(feature = "otel")]
mod otel;
mod parent;

pub use parent::{InvalidTraceParent, TraceParent};

use tracing::{Span, field};

use crate::context::Context;
use crate::message::Headers;
use crate::message::wire::TRACE_HEADERS;
use crate::outcome::Outcome;
use crate::transport::Destination;

/// The span of one handling. Its attributes have the names of OpenTelemetry's conventions for
/// messaging.
pub(crate) fn process(context: &Context, system: &'static str) -> Span {
    let meta = context.meta();
    let span = tracing::info_span!(
        "mmate.process",
        otel.name = field::Empty,
        otel.kind = "consumer",
        otel.status_code = field::Empty,
        messaging.system = system,
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = context.queue(),
        messaging.destination.routing_key = context.routing_key(),
        messaging.consumer.group.name = context.subscription(),
        messaging.message.id = meta.id.as_ref().map(field::display),
        messaging.message.conversation_id = meta.correlation_id.as_ref().map(field::display),
        messaging.message.body.size = context.message().body.len(),
        mmate.message.type = meta.message_type,
        mmate.attempt = context.attempt(),
        mmate.redelivered = context.redelivered(),
        mmate.outcome = field::Empty,
        error.type = field::Empty,
    );
    if !span.is_disabled() {
        span.record("otel.name", field::display(format_args!("process {}", context.queue())));
        #[cfg(feature = "otel")]
        otel::continue_trace(&span, &context.message().headers);
    }
    span
}

/// Notes on the span how the handling ended.
pub(crate) fn ended(span: &Span, outcome: &Outcome) {
    if span.is_disabled() {
        return;
    }
    let (word, error) = match outcome {
        Outcome::Done | Outcome::Answered(_) => ("succeeded", None),
        Outcome::Duplicate(_) => ("duplicate", None),
        Outcome::Defer { .. } => ("deferred", None),
        Outcome::Retry { .. } => ("retried", Some("retryable")),
        Outcome::DeadLetter(letter) => ("dead-lettered", Some(letter.reason.as_str())),
    };
    span.record("mmate.outcome", word);
    if let Some(error) = error {
        span.record("error.type", error);
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of one publication.
pub(crate) fn send(destination: &Destination, id: &str, system: &'static str) -> Span {
    let (name, routing_key) = match destination {
        Destination::Exchange { name, topic } => (name.as_str(), topic.as_str()),
        Destination::Queue(name) => (name.as_str(), name.as_str()),
    };
    let span = tracing::debug_span!(
        "mmate.send",
        otel.name = field::Empty,
        otel.kind = "producer",
        otel.status_code = field::Empty,
        messaging.system = system,
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.name = name,
        messaging.destination.routing_key = routing_key,
        messaging.message.id = id,
        error.type = field::Empty,
    );
    if !span.is_disabled() {
        span.record("otel.name", field::display(format_args!("send {name}")));
    }
    span
}

/// Makes the span of a publication that was prepared before part of the trace it was prepared in.
pub(crate) fn resume(span: &Span, headers: &Headers) {
    #[cfg(feature = "otel")]
    if !span.is_disabled() {
        otel::continue_trace(span, headers);
    }
    #[cfg(not(feature = "otel"))]
    let _ = (span, headers);
}

/// Writes the trace that the span belongs to into the headers of what it publishes. Without
/// OpenTelemetry what was passed on stays.
pub(crate) fn inject(span: &Span, headers: &mut Headers) {
    #[cfg(feature = "otel")]
    otel::inject(span, headers);
    #[cfg(not(feature = "otel"))]
    let _ = (span, headers);
}

/// Copies the trace of a message to what is published because of it, if that has none of its own.
pub(crate) fn pass_on(from: &Headers, to: &mut Headers) {
    if to.text(TRACE_HEADERS[0]).is_some() {
        return;
    }
    for name in TRACE_HEADERS {
        if let Some(value) = from.text(name) {
            to.insert(name, value);
        }
    }
}

/// Where the handling of a message stands in its trace: the span's own place, or else that of the
/// message.
pub(crate) fn place(headers: &Headers) -> Option<TraceParent> {
    #[cfg(feature = "otel")]
    if let Some(place) = otel::place(&Span::current()) {
        return Some(place);
    }
    headers.text(TRACE_HEADERS[0])?.parse().ok()
}

/// Links the present span to a place in another trace.
pub(crate) fn link(to: TraceParent) {
    #[cfg(feature = "otel")]
    otel::link(&Span::current(), to);
    #[cfg(not(feature = "otel"))]
    let _ = to;
}
