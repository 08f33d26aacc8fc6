//! Dead letters: to list, inspect, replay and discard.

mod error;
mod letter;
mod sweep;

use std::fmt;
use std::sync::Arc;

pub use error::DeadLetterError;
pub use letter::Letter;
pub use sweep::{Discarding, Replaying};

use crate::message::wire;
use crate::transport::{Browser, Connection, Transport, TransportError};

/// The dead letters of one queue. Cheap to clone.
///
/// ```
/// # use mmate_core::{HandlerError, InProcess, Json, Outgoing, Permanent, Service, Subscription};
/// use mmate_core::DeadLetters;
///
/// # async fn charge(Json(cents): Json<i64>) -> Result<(), HandlerError> {
/// #     u32::try_from(cents).permanent()?;
/// #     Ok(())
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let transport = InProcess::new();
/// # let running = Service::new("billing")
/// #     .subscribe(Subscription::per_service("charge-card", ["order.paid.*"]).handler(charge))
/// #     .start(transport.clone())
/// #     .await?;
/// # running.publisher().publish(Outgoing::event("order.paid.eu", "OrderPaid", &-1)).await?;
/// # transport.idle().await;
/// let letters = DeadLetters::connect(&transport, "billing.charge-card").await?;
/// for letter in letters.list(100).await? {
///     println!("{:?}: {} ({:?})", letter.message_id(), letter.reason(), letter.error());
/// }
/// // The handler was mended, so those that it failed on may try again.
/// let replayed = letters.replay_where(|letter| letter.reason() == "permanent").await?;
/// assert_eq!(replayed, 1);
/// # running.stop().await?;
/// # Ok(()) }
/// ```
///
/// Nothing here loses a letter. What is only looked at goes back unchanged and in its order, also
/// when the process dies in the middle. A letter is replayed by a copy that is published to its
/// queue and confirmed, and only then is it taken out of the dead-letter queue: a crash between the
/// two leaves it in both, under one id, which idempotency suppresses.
///
/// While letters are looked at, nobody else sees them. RabbitMQ takes them back after its
/// `consumer_timeout`, 30 minutes.
#[derive(Clone)]
pub struct DeadLetters {
    connection: Arc<dyn Connection>,
    queue: Arc<str>,
}

/// How many letters are fetched ahead: what is held in memory when thousands are gone through.
const PAGE: u16 = 200;

impl DeadLetters {
    /// Connects to a broker to work on the dead letters of a queue, which is named as
    /// [`Service::topology`](crate::Service::topology) names it: `{service}.{subscription}`, or the
    /// name of a shared one.
    ///
    /// A running service has them at hand: [`Running::dead_letters`](crate::Running::dead_letters).
    ///
    /// # Errors
    /// As [`Transport::connect`]. Whether the queue is there shows when it is used.
    pub async fn connect<T: Transport>(
        transport: &T,
        queue: impl Into<Arc<str>>,
    ) -> Result<Self, TransportError> {
        let connection = Arc::from(transport.connect("dead letters").await?);
        Ok(Self::new(connection, queue.into()))
    }

    pub(crate) fn new(connection: Arc<dyn Connection>, queue: Arc<str>) -> Self {
        Self { connection, queue }
    }

    /// The queue that the letters come from, and are replayed to.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The first letters, oldest first, at most `limit` of them. All are held in memory; of a large
    /// queue see [`browse`](Self::browse).
    ///
    /// # Errors
    /// [`DeadLetterError`] when the queue is missing, or the connection is lost on the way.
    pub async fn list(&self, limit: usize) -> Result<Vec<Letter>, DeadLetterError> {
        let page = u16::try_from(limit).unwrap_or(PAGE).clamp(1, PAGE);
        let mut letters = Letters(self.open(page).await?);
        let mut listed = Vec::new();
        while listed.len() < limit
            && let Some(letter) = letters.next().await?
        {
            listed.push(letter);
        }
        letters.close().await;
        Ok(listed)
    }

    /// Goes through the letters, oldest first, one at a time. Memory does not grow with their
    /// number (8 bytes for each apart). Nobody else sees those that were looked at before
    /// [`Letters`] is closed or dropped.
    ///
    /// ```
    /// # async fn example(letters: mmate_core::DeadLetters) -> Result<(), mmate_core::DeadLetterError> {
    /// let mut all = letters.browse().await?;
    /// while let Some(letter) = all.next().await? {
    ///     println!("{:?}", letter.message_id());
    /// }
    /// all.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`DeadLetterError`] when the queue is missing, or may not be read.
    pub async fn browse(&self) -> Result<Letters, DeadLetterError> {
        Ok(Letters(self.open(PAGE).await?))
    }

    /// Sends the letters with this id back to the queue that they come from, and to no other that
    /// is bound to the same topic. Their ids and headers are kept, their attempts begin anew. See
    /// [`Replaying`], which does it when it is awaited.
    pub fn replay(&self, id: impl AsRef<str>) -> Replaying<'_> {
        self.replay_where(with_id(id.as_ref()))
    }

    /// As [`replay`](Self::replay), of all letters that are chosen. Those that come while this runs
    /// are not gone through, so a message that fails again is not replayed for ever.
    pub fn replay_where<'a>(
        &'a self,
        chosen: impl FnMut(&Letter) -> bool + Send + 'a,
    ) -> Replaying<'a> {
        Replaying::new(self, Box::new(chosen))
    }

    /// Throws the letters with this id away. See [`Discarding`], which does it when it is awaited.
    pub fn discard(&self, id: impl AsRef<str>) -> Discarding<'_> {
        self.discard_where(with_id(id.as_ref()))
    }

    /// As [`discard`](Self::discard), of all letters that are chosen.
    pub fn discard_where<'a>(
        &'a self,
        chosen: impl FnMut(&Letter) -> bool + Send + 'a,
    ) -> Discarding<'a> {
        Discarding::new(self, Box::new(chosen))
    }

    /// Closes the connection. Only for one made by [`connect`](Self::connect); a service closes its
    /// own.
    pub async fn close(&self) {
        self.connection.close().await;
    }

    async fn open(&self, page: u16) -> Result<Open, DeadLetterError> {
        let name = wire::dead_letter_queue(&self.queue);
        match self.connection.browse(&name, page).await {
            Ok(browser) => Ok(Open { browser, queue: Arc::clone(&self.queue) }),
            Err(source) => {
                Err(DeadLetterError::Unavailable { queue: self.queue.to_string(), source })
            }
        }
    }
}

fn with_id(id: &str) -> impl FnMut(&Letter) -> bool + Send + 'static {
    let id = id.to_owned();
    move |letter| letter.message_id() == Some(&id)
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// The letters of a queue one by one, made by [`DeadLetters::browse`].
#[must_use = "letters are read with next()"]
pub struct Letters(Open);

impl Letters {
    /// The next letter; `None` after the last of those that were there at the beginning.
    ///
    /// # Errors
    /// [`DeadLetterError::Interrupted`] when the connection is lost.
    pub async fn next(&mut self) -> Result<Option<Letter>, DeadLetterError> {
        let next = self.0.browser.next().await;
        let next = next.map_err(|source| DeadLetterError::Interrupted {
            queue: self.0.queue.to_string(),
            done: 0,
            source,
        })?;
        // The delivery is dropped, which leaves the letter where it is.
        Ok(next.map(|delivery| Letter::read(&delivery, &self.0.queue)))
    }

    /// Gives all of them back, and returns when that is done.
    pub async fn close(self) {
        self.0.browser.close().await;
    }
}

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letters").field("queue", &self.0.queue).finish_non_exhaustive()
    }
}

/// A dead-letter queue that is being gone through.
struct Open {
    browser: Box<dyn Browser>,
    queue: Arc<str>,
}
