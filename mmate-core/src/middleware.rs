//! Middleware: what happens around a handler.

use std::any::TypeId;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;

use crate::context::Context;
use crate::handler::AnyHandler;
use crate::health::Status;
use crate::outcome::{BoxError, HandlerError, Outcome};
use crate::publisher::Publisher;
use crate::service::Surroundings;

/// Something that happens around the handling of each message.
///
/// ```
/// use mmate_core::{Context, HandlerError, Middleware, Next, Outcome};
///
/// struct Maintenance;
///
/// #[async_trait::async_trait]
/// impl Middleware for Maintenance {
///     async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
///         if std::path::Path::new("/run/maintenance").exists() {
///             return Ok(Outcome::Defer { after: std::time::Duration::from_secs(30) });
///         }
///         next.run(context).await
///     }
/// }
/// ```
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Handles a message: calls `next`, or answers itself.
    ///
    /// The future is dropped when a drain runs out of time; what must be undone then is undone by
    /// a guard's drop.
    ///
    /// # Errors
    /// What the handler failed with, or a failure of the middleware itself.
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError>;

    /// Says why it cannot work with the subscription's other settings and the broker's limits, in
    /// a sentence with the values and the mend. Asked before anything starts.
    ///
    /// # Errors
    /// The sentence. The service then does not start.
    fn check(&self, surroundings: &Surroundings) -> Result<(), String> {
        let _ = surroundings;
        Ok(())
    }

    /// What works only as long as all goes well, each in a sentence with the values and the mend. It
    /// stands in the log when the service starts.
    fn warnings(&self, surroundings: &Surroundings) -> Vec<String> {
        let _ = surroundings;
        Vec::new()
    }

    /// Called before the first message, after the broker is connected: once for each subscription
    /// that has this middleware.
    ///
    /// # Errors
    /// The service then does not start.
    async fn start(&self) -> Result<(), BoxError> {
        Ok(())
    }

    /// Called when all queues of the service are declared, before the first message: once for each
    /// subscription that has this middleware. The publisher, which may be kept until
    /// [`stop`](Self::stop), publishes in the service's name.
    ///
    /// # Errors
    /// The service then does not start.
    async fn ready(&self, publisher: &Publisher) -> Result<(), BoxError> {
        let _ = publisher;
        Ok(())
    }

    /// Called after the last message, before the connection closes: once for each subscription that
    /// has this middleware.
    async fn stop(&self) {}

    /// How it is, for the health of its subscription: an idempotency strategy whose store does not
    /// answer is degraded.
    fn status(&self) -> Status {
        Status::Up
    }

    /// The types that stand for what extractors may take because of this middleware; see
    /// [`Requirement`](crate::Requirement).
    fn provides(&self) -> Vec<TypeId> {
        Vec::new()
    }
}

/// A middleware that suppresses duplicates. The strategies of `mmate-idempotency` are.
///
/// A type of its own, so that [`idempotent`](crate::SubscriptionBuilder::idempotent) takes no
/// other middleware.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not suppress duplicates",
    label = "not a strategy",
    note = "strategies are `Transactional` and `Tracked`; other middleware, such as a lock \
            (`Locked`), goes into `.middleware(…)`, around the strategy"
)]
pub trait Idempotency: Middleware {}

/// The rest of the way to the handler.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    rest: &'a [Arc<dyn Middleware>],
    end: &'a Endpoint,
}

impl<'a> Next<'a> {
    pub(crate) fn new(all: &'a [Arc<dyn Middleware>], end: &'a Endpoint) -> Self {
        Self { rest: all, end }
    }

    /// Goes on: the next middleware, or the handler.
    ///
    /// # Errors
    /// What came back from there. A panic and a timeout of the handler come back as errors.
    pub async fn run(self, context: &mut Context) -> Result<Outcome, HandlerError> {
        match self.rest.split_first() {
            Some((first, rest)) => first.handle(context, Next { rest, end: self.end }).await,
            None => self.end.run(context).await,
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Next({} more middleware)", self.rest.len())
    }
}

/// The innermost part: the handler under its time limit, its panics caught.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) handler: AnyHandler,
    pub(crate) timeout: Option<Duration>,
}

impl Endpoint {
    async fn run(&self, context: &Context) -> Result<Outcome, HandlerError> {
        let handling = catch_panic(self.handler.call(context));
        match self.timeout {
            None => handling.await,
            Some(limit) => match tokio::time::timeout(limit, handling).await {
                Ok(result) => result,
                Err(_) => Err(HandlerError::retryable(TimedOut { limit })),
            },
        }
    }
}

/// Runs a future, and turns its panic into an error.
pub(crate) async fn catch_panic<T>(
    future: impl Future<Output = Result<T, HandlerError>>,
) -> Result<T, HandlerError> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(result) => result,
        Err(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "without a message".to_owned());
            Err(HandlerError::retryable(Panicked { text }))
        }
    }
}

/// The handler took longer than its limit.
#[derive(Debug, thiserror::Error)]
#[error("the handler took longer than {limit:?}")]
#[non_exhaustive]
pub struct TimedOut {
    /// The limit.
    pub limit: Duration,
}

/// The handler panicked.
#[derive(Debug, thiserror::Error)]
#[error("the handler panicked: {text}")]
#[non_exhaustive]
pub struct Panicked {
    /// The panic's message.
    pub text: String,
}
