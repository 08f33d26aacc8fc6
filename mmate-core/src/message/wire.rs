//! The names that messages carry on the wire. `docs/wire-format.md` says how they are used.

/// The exchange of events.
pub const EVENTS: &str = "mmate.events";
/// The exchange of commands.
pub const COMMANDS: &str = "mmate.commands";
/// The exchange of queries.
pub const QUERIES: &str = "mmate.queries";
/// The exchange of messages of no particular kind.
pub const MESSAGES: &str = "mmate.messages";
/// The exchange that dead letters go through.
pub const DEAD_LETTERS: &str = "mmate.dlx";

/// The content type of an envelope.
pub const CONTENT_TYPE: &str = "application/json";
/// The version of the wire format, in the header [`VERSION`].
pub const WIRE_VERSION: &str = "1.0";

/// Header: the message's id.
pub const MESSAGE_ID: &str = "x-message-id";
/// Header: the message's id, as mmate for Go also writes it.
pub const MESSAGE_ID_PLAIN: &str = "message-id";
/// Header: the message's type.
pub const MESSAGE_TYPE: &str = "x-message-type";
/// Header: the message's type, as mmate for Go also writes it.
pub const MESSAGE_TYPE_PLAIN: &str = "message-type";
/// Header: `event`, `command`, `query` or `reply`.
pub const MESSAGE_KIND: &str = "x-message-kind";
/// Header: the correlation id.
pub const CORRELATION_ID: &str = "x-correlation-id";
/// Header: the correlation id, as mmate for Go also writes it.
pub const CORRELATION_ID_PLAIN: &str = "correlation-id";
/// Header: the service that published the message.
pub const SOURCE: &str = "x-source";
/// Header: the version of the wire format.
pub const VERSION: &str = "x-version";

/// Header of a reply: `true`, or `false` for an error reply.
pub const SUCCESS: &str = "x-success";
/// Header of a request: the conversation it belongs to, since its correlation id names the request
/// itself.
pub const CONVERSATION: &str = "x-mmate-conversation";
/// Header of a reply that was given before, and is sent again for a copy of its request.
pub const REPLAYED: &str = "x-mmate-replayed";

/// Header of a message that was published because of another one: how many came before it in its
/// chain.
pub const HOPS: &str = "x-mmate-hops";

/// Header of a delayed message: how many attempts at handling it have failed so far.
pub const ATTEMPTS: &str = "x-mmate-attempts";
/// Header of a delayed message: how often it was deferred; this counts toward nothing.
pub const DEFERRALS: &str = "x-mmate-deferrals";
/// Header of a delayed or dead message: the exchange it was published to.
pub const EXCHANGE: &str = "x-mmate-exchange";
/// Header of a delayed or dead message: the routing key it was published with.
pub const ROUTING_KEY: &str = "x-mmate-routing-key";
/// Header of a retried or dead message: when handling it first failed, in RFC 3339.
pub const FIRST_FAILED_AT: &str = "x-mmate-first-failed-at";
/// Header of a dead message: the queue it was taken from.
pub const QUEUE: &str = "x-mmate-queue";
/// Header of a dead message: why it is one, a word such as `attempts-exhausted`.
pub const REASON: &str = "x-mmate-reason";
/// Header of a retried or dead message: the last error's text.
pub const ERROR: &str = "x-mmate-error";
/// Header of a dead message: when it was dead-lettered, in RFC 3339.
pub const DEAD_AT: &str = "x-mmate-dead-at";
/// Headers: the trace that the message belongs to (W3C Trace Context).
pub const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// Whether a header's name has a meaning of its own here, so that no service can use it for itself.
#[must_use]
pub fn is_reserved(header: &str) -> bool {
    let known = [
        MESSAGE_ID,
        MESSAGE_ID_PLAIN,
        MESSAGE_TYPE,
        MESSAGE_TYPE_PLAIN,
        MESSAGE_KIND,
        CORRELATION_ID,
        CORRELATION_ID_PLAIN,
        SOURCE,
        VERSION,
    ];
    header.starts_with("x-mmate-") || known.contains(&header) || TRACE_HEADERS.contains(&header)
}

/// The name of the queue that the replies to an instance of a service come to.
#[must_use]
pub fn reply_queue(service: &str, instance: &str) -> String {
    format!("{service}.replies.{instance}")
}

/// Header of a message that was replayed from a dead-letter queue: how often.
pub const REPLAYS: &str = "x-mmate-replays";
/// Header of a message that was replayed under a new id: the id it had before.
pub const REPLAY_OF: &str = "x-mmate-replay-of";

/// The name of a queue's dead-letter queue.
#[must_use]
pub fn dead_letter_queue(queue: &str) -> String {
    format!("dlq.{queue}")
}
