//! Messages in the order of their numbers.

mod desk;
mod meters;
mod place;
mod seat;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use mmate_core::{
    BoxError, Context, DeadLetter, DeadReason, HandlerError, Middleware, Next, Outcome,
    Surroundings,
};
use tokio::time::{Instant, sleep_until};

use self::desk::{Desk, Turn};
pub use self::place::{Place, SequenceKey};
use self::seat::Seat;

/// Holds a message that comes too early until its predecessor was handled, or a limit has passed.
///
/// Messages that carry a number within a key (a conversation, an aggregate) are handled in the order
/// of their numbers, however they arrive: `7` waits for `6`, and other keys go on meanwhile. What is
/// held is not acknowledged, so a process that dies loses nothing. It takes a handler's place, so
/// half of the subscription's [`concurrency`](mmate_core::SubscriptionBuilder::concurrency) may be
/// held at most ([`most`](Self::most)); what comes too early beyond that is deferred on the broker.
///
/// - A message whose number was handled before goes on to the handler, or rather to the idempotency
///   strategy inside, which tells a duplicate from one that is late.
/// - If the predecessor does not come within the limit, [`OnGap`] says what happens.
/// - A message that fails keeps its turn: its successors wait for its next attempt, up to the limit.
/// - What comes first of a key that this process has not seen is number 1, unless
///   [`resume_from`](Self::resume_from) knows better; a process that was restarted would otherwise
///   wait once for each key.
///
/// The order is that of this process. With several instances on one queue each would see a part of
/// the numbers only: give each key to one of them, with
/// [`partitions`](mmate_core::SubscriptionBuilder::partitions) or
/// [`single_active_consumer`](mmate_core::SubscriptionBuilder::single_active_consumer). It does not
/// go together with `ordered_by`, in whose lanes the predecessor would wait behind its successor.
///
/// ```
/// use std::time::Duration;
/// use mmate_core::{HandlerError, Json, Subscription};
/// use mmate_idempotency::sequence::{Resequencer, SequenceKey};
/// use mmate_idempotency::{MemoryStore, Tracked};
///
/// async fn show(Json(text): Json<String>) -> Result<(), HandlerError> {
/// #   let _ = text;
///     Ok(())
/// }
///
/// let subscription = Subscription::per_service("show", ["message.sent.*"])
///     .middleware(
///         Resequencer::by(SequenceKey::headers("conversation", "number"))
///             .wait(Duration::from_secs(5)),
///     )
///     .idempotent(Tracked::new(MemoryStore::new()))
///     .handler(show);
/// # let _ = subscription;
/// ```
#[derive(Clone)]
#[must_use = "a resequencer does nothing until a subscription has it"]
pub struct Resequencer {
    key: SequenceKey,
    wait: Duration,
    most: Option<usize>,
    on_gap: OnGap,
    resume: Option<Arc<Resume>>,
    desk: Arc<Desk>,
    /// How many may be held, once that is known.
    room: Arc<AtomicUsize>,
}

type Resume = dyn Fn(String) -> BoxFuture<'static, Result<Option<u64>, BoxError>> + Send + Sync;

/// What becomes of a message whose predecessor does not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnGap {
    /// It is handled; what comes later of those it has overtaken is handled then. The default.
    #[default]
    Handle,
    /// It is dead-lettered as `malformed`, and so is each after it until the missing one comes.
    DeadLetter,
}

const DEFAULT_WAIT: Duration = Duration::from_secs(10);
const DEFAULT_KEYS: usize = 100_000;

/// How long what finds no room to be held stays on the broker.
const NO_ROOM: Duration = Duration::from_secs(1);

impl Resequencer {
    /// In the order that the key says.
    pub fn by(key: SequenceKey) -> Self {
        Self {
            key,
            wait: DEFAULT_WAIT,
            most: None,
            on_gap: OnGap::default(),
            resume: None,
            desk: Arc::new(Desk::new(DEFAULT_KEYS)),
            room: Arc::default(),
        }
    }

    /// How long a message waits for its predecessor; 10 s by default.
    pub fn wait(mut self, limit: Duration) -> Self {
        self.wait = limit;
        self
    }

    /// How many messages are held at most, of all keys together; half of the subscription's
    /// concurrency by default.
    pub fn most(mut self, messages: usize) -> Self {
        self.most = Some(messages);
        self
    }

    /// What becomes of a message whose predecessor does not come in time; it is handled by default.
    pub fn on_gap(mut self, on_gap: OnGap) -> Self {
        self.on_gap = on_gap;
        self
    }

    /// How many keys are remembered; 100,000 by default, of about 100 bytes each beside the key. The
    /// key that was used least lately is forgotten first; one with messages at hand never is.
    pub fn keys(mut self, keys: usize) -> Self {
        self.desk = Arc::new(Desk::new(keys.max(1)));
        self
    }

    /// Asks for the last number of a key that was handled, when this process sees the key for the
    /// first time, or again after it was forgotten. `None` says that there was none.
    ///
    /// ```
    /// use mmate_idempotency::sequence::{Resequencer, SequenceKey};
    /// # async fn last_number(conversation: &str) -> Result<Option<u64>, std::io::Error> { Ok(None) }
    /// let resequencer = Resequencer::by(SequenceKey::headers("conversation", "number"))
    ///     .resume_from(|conversation| async move { last_number(&conversation).await });
    /// # let _ = resequencer;
    /// ```
    pub fn resume_from<F, Fut, E>(mut self, last: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<u64>, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.resume = Some(Arc::new(move |key| {
            let last = last(key);
            Box::pin(async move { last.await.map_err(Into::into) })
        }));
        self
    }

    /// How many messages are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.desk.held()
    }

    /// Makes sure that it is known which number of a key comes next.
    async fn know(&self, key: &str) -> Result<(), HandlerError> {
        if self.desk.knows(key) {
            return Ok(());
        }
        let last = match &self.resume {
            Some(resume) => resume(key.to_owned()).await.map_err(HandlerError::retryable)?,
            None => None,
        };
        self.desk.begin(key, last.unwrap_or(0).saturating_add(1));
        Ok(())
    }

    /// Waits for the turn of a message; `None` if it is over, or cannot be waited for.
    async fn turn(&self, context: &Context, seat: &mut Seat) -> Result<(), Instead> {
        let deadline = Instant::now() + self.wait;
        loop {
            let change = seat.change();
            match seat.ask(false) {
                Turn::Now | Turn::Past => return Ok(()),
                Turn::Early if !seat.hold(self.room.load(Ordering::Relaxed)) => {
                    return Err(Instead::NoRoom);
                }
                Turn::Early => {}
            }
            tokio::select! {
                () = change => {}
                () = context.stopping() => return Err(Instead::Stopping),
                // Of those that wait the first one goes on; the others come after it.
                () = sleep_until(deadline), if seat.is_first() => match self.on_gap {
                    OnGap::DeadLetter => return Err(Instead::Gap),
                    OnGap::Handle => {
                        if let Turn::Now = seat.ask(true) {
                            return Ok(());
                        }
                    }
                },
            }
        }
    }
}

/// What becomes of a message instead of being handled.
enum Instead {
    NoRoom,
    Stopping,
    Gap,
}

#[async_trait]
impl Middleware for Resequencer {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let place = self.key.place(context);
        let place = place.map_err(|error| HandlerError::dead(DeadReason::Malformed, error))?;
        let Some(Place { key, number }) = place else { return next.run(context).await };
        self.know(&key).await?;
        let mut seat = Seat::take(&self.desk, &key, number);
        match self.turn(context, &mut seat).await {
            Ok(()) => {}
            Err(Instead::NoRoom) => return Ok(Outcome::Defer { after: NO_ROOM }),
            // Another instance has it sooner.
            Err(Instead::Stopping) => return Ok(Outcome::Defer { after: Duration::ZERO }),
            Err(Instead::Gap) => {
                let detail = format!(
                    "number {number} of {key:?} came, and number {} did not within {:?}",
                    seat.awaited(),
                    self.wait
                );
                return Ok(Outcome::DeadLetter(DeadLetter::new(DeadReason::Malformed, detail)));
            }
        }
        let result = next.run(context).await;
        match &result {
            // A dead letter will not come back by itself, and is not waited for.
            Ok(
                Outcome::Done
                | Outcome::Answered(_)
                | Outcome::Duplicate(_)
                | Outcome::DeadLetter(_),
            ) => seat.done(),
            Err(error) if error.dead_reason().is_some() => seat.done(),
            // It keeps its turn for the next attempt.
            _ => {}
        }
        result
    }

    fn check(&self, surroundings: &Surroundings) -> Result<(), String> {
        let concurrency = surroundings.concurrency;
        let most = self.most.unwrap_or(concurrency / 2);
        if surroundings.ordered {
            return Err("a Resequencer does not go together with ordered_by: in a lane the \
                        predecessor waits behind its successor. Leave one of them out"
                .to_owned());
        }
        if most == 0 || most >= concurrency {
            return Err(format!(
                "a Resequencer that holds up to {most} messages needs a concurrency above that and \
                 of 2 at least, for those that they wait for, and it is {concurrency}: raise the \
                 concurrency, or hold fewer with .most(…)"
            ));
        }
        self.room.store(most, Ordering::Relaxed);
        let what = format!("a message waits up to {:?} for its predecessor", self.wait);
        surroundings.may_hold(&what, self.wait)
    }
}

impl fmt::Debug for Resequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resequencer")
            .field("key", &self.key)
            .field("wait", &self.wait)
            .field("on_gap", &self.on_gap)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}
