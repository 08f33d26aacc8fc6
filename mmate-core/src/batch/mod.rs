//! Handlers of many messages at a time.

mod assembly;
mod gather;
mod handler;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

pub use assembly::{Assembly, BatchTerms, Seat};
pub(crate) use gather::{Batching, Gatherer, Setting};
pub use handler::{BatchContext, BatchHandler, FromBatch};

use crate::message::Meta;
use crate::outcome::{HandlerError, Outcome};
use crate::publisher::Publisher;

/// How messages are gathered for a
/// [`batch_handler`](crate::SubscriptionBuilder::batch_handler): up to a number of them, or as many
/// as came within a time.
///
/// ```
/// use std::time::Duration;
/// use mmate_core::BatchPolicy;
/// let policy = BatchPolicy::up_to(100).within(Duration::from_millis(50));
/// # let _ = policy;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPolicy {
    pub(crate) size: usize,
    pub(crate) within: Duration,
}

impl BatchPolicy {
    /// At most so many messages at a time, at least 1. What has come within 50 ms of a batch's
    /// first message is handled without waiting for more.
    #[must_use]
    pub fn up_to(messages: usize) -> Self {
        Self { size: messages, within: Duration::from_millis(50) }
    }

    /// How long a batch waits for more after its first message has come.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }
}

/// Messages that are handled together, in the order in which they came to the handler. Never empty.
///
/// ```
/// use mmate_core::{Batch, BatchOutcome, HandlerError};
/// # #[derive(serde::Deserialize)] struct OrderCreated { sku: String }
/// # async fn insert_all<'a>(_: impl Iterator<Item = &'a OrderCreated>) -> std::io::Result<()> { Ok(()) }
/// # async fn insert(_: &OrderCreated) -> std::io::Result<()> { Ok(()) }
///
/// /// All or none: an error is an error of each of them.
/// async fn store(batch: Batch<OrderCreated>) -> Result<(), HandlerError> {
///     insert_all(batch.values()).await?;
///     Ok(())
/// }
///
/// /// Each for itself: those that are not mentioned are done.
/// async fn store_each(batch: Batch<OrderCreated>) -> Result<BatchOutcome, HandlerError> {
///     let mut outcome = BatchOutcome::done();
///     for item in &batch {
///         if let Err(error) = insert(item.value()).await {
///             outcome.fail(item, error);
///         }
///     }
///     Ok(outcome)
/// }
/// # let _ = (store, store_each);
/// ```
pub struct Batch<T> {
    items: Vec<BatchItem<T>>,
}

impl<T> Batch<T> {
    /// How many messages there are.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The messages.
    pub fn iter(&self) -> std::slice::Iter<'_, BatchItem<T>> {
        self.items.iter()
    }

    /// The decoded payloads.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(BatchItem::value)
    }
}

impl<'a, T> IntoIterator for &'a Batch<T> {
    type Item = &'a BatchItem<T>;
    type IntoIter = std::slice::Iter<'a, BatchItem<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> IntoIterator for Batch<T> {
    type Item = BatchItem<T>;
    type IntoIter = std::vec::IntoIter<BatchItem<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} messages)", self.items.len())
    }
}

/// One message of a [`Batch`].
pub struct BatchItem<T> {
    place: usize,
    value: T,
    meta: Meta,
    topic: String,
    attempt: u32,
    publisher: Publisher,
}

impl<T> BatchItem<T> {
    /// The decoded payload.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The decoded payload, to keep.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }

    /// What properties and headers say.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The topic that it was published with.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Which attempt at this message this is, from 1. Those of its neighbours may differ.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// A publisher whose messages belong to this one's conversation and name it as their cause.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }
}

impl<T> fmt::Debug for BatchItem<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchItem")
            .field("meta", &self.meta)
            .field("topic", &self.topic)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// What became of each message of a batch: [`Outcome::Done`] unless something else was said.
#[derive(Debug, Default)]
pub struct BatchOutcome {
    other: HashMap<usize, Result<Outcome, HandlerError>>,
}

impl BatchOutcome {
    /// All are done, until something else is said of one.
    #[must_use]
    pub fn done() -> Self {
        Self::default()
    }

    /// This one failed: it is retried, on its own count of attempts, or dead-lettered if the error
    /// is permanent. What is said last of an item holds; an item of another batch means the one
    /// at its place in this.
    pub fn fail<T>(&mut self, item: &BatchItem<T>, error: impl Into<HandlerError>) {
        self.other.insert(item.place, Err(error.into()));
    }

    /// Says what shall become of this one.
    pub fn set<T>(&mut self, item: &BatchItem<T>, outcome: Outcome) {
        self.other.insert(item.place, Ok(outcome));
    }

    fn take(&mut self, place: usize) -> Result<Outcome, HandlerError> {
        self.other.remove(&place).unwrap_or(Ok(Outcome::Done))
    }
}

/// What a batch handler may return inside its `Ok`: `()` if all are done, or a [`BatchOutcome`].
#[diagnostic::on_unimplemented(
    message = "a batch handler's `Ok` cannot be `{Self}`",
    note = "return `Result<(), HandlerError>` or `Result<BatchOutcome, HandlerError>`"
)]
pub trait IntoBatchOutcome {
    /// The outcome it stands for.
    fn into_batch_outcome(self) -> BatchOutcome;
}

impl IntoBatchOutcome for () {
    fn into_batch_outcome(self) -> BatchOutcome {
        BatchOutcome::done()
    }
}

impl IntoBatchOutcome for BatchOutcome {
    fn into_batch_outcome(self) -> BatchOutcome {
        self
    }
}
