#![doc = include_str!("../README.md")]

#[cfg(feature = "checker")]
pub mod checker;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod health;
pub mod message;
pub mod topic;
pub mod transport;

mod batch;
mod context;
mod dead_letters;
mod handler;
mod inprocess;
mod middleware;
mod outcome;
mod plan;
mod publisher;
mod reply;
mod request;
mod service;
mod stats;
mod subscription;
mod sync;
mod trace;

pub use batch::{
    Assembly, Batch, BatchContext, BatchHandler, BatchItem, BatchOutcome, BatchPolicy, BatchTerms,
    FromBatch, IntoBatchOutcome, Seat,
};
pub use context::Context;
pub use dead_letters::{DeadLetterError, DeadLetters, Discarding, Letter, Letters, Replaying};
pub use handler::{Attempt, Body, FromContext, Handler, Json, Requirement, State};
pub use health::{Health, HealthReport};
pub use inprocess::{Chaos, InProcess, QueueState};
pub use message::{
    CausationId, CorrelationId, DecodeError, Envelope, HeaderValue, Headers, InvalidId,
    InvalidMessage, Malformed, Message, MessageId, MessageKind, Meta, Outgoing,
};
pub use middleware::{Idempotency, Middleware, Next, Panicked, TimedOut};
pub use outcome::{
    BoxError, DeadLetter, DeadReason, Duplicate, DuplicateReason, HandlerError, IntoOutcome,
    Outcome, Permanent, error_chain,
};
pub use plan::{MadeQueue, PlannedQueue, QueueRole, Topology};
pub use publisher::Publisher;
pub use reply::{Answer, LostReplies, RefusedReplyAddress, Reply, ReplyError};
pub use request::{ErrorReply, Replied, Request, RequestError};
pub use service::{
    ConfigError, Overlap, Run, Running, Service, ServiceError, Surroundings, shutdown_signal,
};
pub use stats::{Counts, Duplicates, Stats};
pub use subscription::{
    InvalidName, InvalidTypeFilter, MissingKey, OrderKey, RetryPolicy, Scope, Subscription,
    SubscriptionBuilder,
};
pub use topic::{InvalidTopic, InvalidTopicPattern, Topic, TopicPattern};
pub use trace::{InvalidTraceParent, TraceParent};
pub use transport::{
    Connection, Declare, PublishError, QueueKind, Settled, Transport, TransportError,
    TransportErrorKind,
};
