//! Requests: asking, and waiting for the reply.

mod error;
mod inbox;
mod table;

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;

pub use error::{ErrorReply, RequestError};
pub(crate) use inbox::Requests;

use crate::message::{InvalidMessage, Message, Outgoing, wire};
use crate::publisher::Publisher;
use crate::transport::PublishError;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A request that is about to be made, see [`Publisher::request`]. It is made when it is awaited;
/// dropping the future ends the wait for the reply, and leaves nothing behind.
#[must_use = "a request is made when this is awaited"]
pub struct Request<T> {
    publisher: Publisher,
    message: Outgoing,
    timeout: Duration,
    reply: PhantomData<fn() -> T>,
}

impl<T> Request<T> {
    pub(crate) fn new(publisher: Publisher, message: Outgoing) -> Self {
        Self { publisher, message, timeout: DEFAULT_TIMEOUT, reply: PhantomData }
    }

    /// How long all of it may take, publishing included; 30 s by default.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }
}

impl<T: DeserializeOwned> Request<T> {
    /// Makes the request, and returns the reply with what is known of it beside its value.
    ///
    /// ```no_run
    /// # async fn ask(publisher: mmate_core::Publisher) -> Result<(), mmate_core::RequestError> {
    /// use mmate_core::Outgoing;
    ///
    /// let charge = Outgoing::query("Charge", &995).id_text("the-clients-own-id");
    /// let reply = publisher.request::<u64>(charge).reply().await?;
    /// if reply.replayed {
    ///     println!("charged before: {}", reply.value);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn reply(self) -> Result<Replied<T>, RequestError> {
        let Self { publisher, message, timeout, .. } = self;
        let mut progress = Progress::default();
        let asking = ask(&publisher, message, &mut progress);
        let Ok(reply) = tokio::time::timeout(timeout, asking).await else {
            return Err(match progress.ambiguous {
                Some(error) => RequestError::Publish(error),
                None => RequestError::Timeout { after: timeout, published: progress.published },
            });
        };
        let reply = reply?;
        let replayed = reply.headers.contains(wire::REPLAYED);
        Ok(Replied { value: error::read(reply)?, replayed })
    }
}

/// A reply, see [`Request::reply`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replied<T> {
    /// What was answered.
    pub value: T,
    /// Whether it was answered from the record of an earlier copy of the request, and its handler
    /// did not run for this one.
    pub replayed: bool,
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for Request<T> {
    type Output = Result<T, RequestError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.reply().await?.value) })
    }
}

/// How far a request got, for the error if its time is up.
#[derive(Default)]
struct Progress {
    published: bool,
    ambiguous: Option<PublishError>,
}

/// Publishes the request, and returns its reply.
async fn ask(
    publisher: &Publisher,
    message: Outgoing,
    progress: &mut Progress,
) -> Result<Message, RequestError> {
    let requests = publisher.requests();
    requests.open(publisher.connection()).await?;
    let (message, id) = publisher.attributed(message).ask(requests.queue()).map_err(invalid)?;
    let (_, publication) = message.into_publication(publisher.source()).map_err(invalid)?;
    let mut waiting = requests.wait(id.as_str());
    // A quick reply may come before the confirmation of the request.
    let published = tokio::select! {
        biased;
        reply = waiting.reply() => return reply,
        published = publisher.send(&id, publication) => published,
    };
    match published {
        Ok(()) => progress.published = true,
        // If it was stored, its reply will tell.
        Err(error @ PublishError::Ambiguous { .. }) => progress.ambiguous = Some(error),
        Err(PublishError::Unroutable { destination }) => {
            return Err(RequestError::Unroutable { destination });
        }
        Err(PublishError::Closed) => return Err(RequestError::Closed),
        Err(error) => return Err(RequestError::Publish(error)),
    }
    waiting.reply().await
}

fn invalid(error: InvalidMessage) -> RequestError {
    RequestError::Publish(error.into())
}

impl<T> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("message", &self.message)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
