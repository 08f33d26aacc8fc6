//! What messages are put in order by.

use std::fmt;
use std::sync::Arc;

use crate::context::Context;
use crate::message::HeaderValue;
use crate::outcome::{BoxError, DeadLetter, DeadReason, error_chain};
use crate::transport::HashBy;

/// What messages are put in order by: those with the same key are handled one after another, see
/// [`ordered_by`](crate::SubscriptionBuilder::ordered_by).
///
/// ```
/// use mmate_core::{MissingKey, OrderKey};
///
/// // One lane an account, as a header names it.
/// let by_header = OrderKey::header("account-id");
/// // `order.created.us-west`: one lane a region. Words are counted from 0.
/// let by_region = OrderKey::topic_word(2);
/// // From the payload; this costs decoding it, for duplicates too.
/// let by_payload = OrderKey::json_pointer("/account/id");
/// // Messages without the header are handled as well, in any order.
/// let lenient = OrderKey::header("account-id").missing(MissingKey::Unordered);
/// let own = OrderKey::from_fn(|context| {
///     let tenant = context.message().headers.text("tenant").ok_or("no tenant")?;
///     Ok::<_, &str>(tenant.to_lowercase())
/// });
/// # let _ = (by_header, by_region, by_payload, lenient, own);
/// ```
#[derive(Clone)]
pub struct OrderKey {
    source: Source,
    missing: MissingKey,
}

#[derive(Clone)]
enum Source {
    Header(Arc<str>),
    CorrelationId,
    Topic,
    TopicWord(usize),
    JsonPointer(Arc<str>),
    Function(Arc<Function>),
}

type Function = dyn Fn(&Context) -> Result<String, BoxError> + Send + Sync;

/// What becomes of a message that has no key to be put in order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MissingKey {
    /// It is dead-lettered as `malformed`. The default: nobody can say what it must not overtake.
    #[default]
    DeadLetter,
    /// It is in a lane of its own: handled in no order with any other message.
    Unordered,
}

impl OrderKey {
    /// The text, or the whole number, in a header.
    #[must_use]
    pub fn header(name: impl Into<Arc<str>>) -> Self {
        Self::of(Source::Header(name.into()))
    }

    /// The correlation id: a conversation's messages in their order.
    #[must_use]
    pub fn correlation_id() -> Self {
        Self::of(Source::CorrelationId)
    }

    /// The whole topic, which is the routing key.
    #[must_use]
    pub fn topic() -> Self {
        Self::of(Source::Topic)
    }

    /// One word of the topic, counted from 0.
    #[must_use]
    pub fn topic_word(word: usize) -> Self {
        Self::of(Source::TopicWord(word))
    }

    /// The text, or the whole number, at a place in the payload, as a JSON pointer (RFC 6901) such
    /// as `/account/id` names it. The payload of every message is decoded for this, a duplicate's
    /// too; a header is cheaper.
    #[must_use]
    pub fn json_pointer(pointer: impl Into<Arc<str>>) -> Self {
        Self::of(Source::JsonPointer(pointer.into()))
    }

    /// What a function makes of the message. If it fails or panics, the message is dead-lettered as
    /// `malformed`, and the others go on.
    ///
    /// It is called before the message is handled, on the task that fetches: it must be quick, and
    /// give the same text for the same message each time.
    #[must_use]
    pub fn from_fn<F, E>(function: F) -> Self
    where
        F: Fn(&Context) -> Result<String, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        let function = move |context: &Context| function(context).map_err(Into::into);
        Self::of(Source::Function(Arc::new(function)))
    }

    /// What becomes of a message without a key; it is dead-lettered unless said otherwise.
    #[must_use]
    pub fn missing(mut self, missing: MissingKey) -> Self {
        self.missing = missing;
        self
    }

    fn of(source: Source) -> Self {
        Self { source, missing: MissingKey::default() }
    }

    /// Whether the key can be wrong as it stands, whatever the message.
    pub(crate) fn problem(&self) -> Option<String> {
        match &self.source {
            Source::Header(name) if name.is_empty() => Some("a header's name is not empty".into()),
            Source::JsonPointer(pointer) if !pointer.starts_with('/') => {
                Some(format!("the JSON pointer {pointer:?} does not begin with /"))
            }
            _ => None,
        }
    }

    /// What a broker can hash so that messages of one key come into one partition; why it cannot
    /// if it cannot.
    pub(crate) fn hash_by(&self) -> Result<HashBy, String> {
        match &self.source {
            Source::Header(name) => Ok(HashBy::Header(name.to_string())),
            Source::CorrelationId => Ok(HashBy::CorrelationId),
            Source::Topic => Ok(HashBy::Topic),
            Source::TopicWord(_) | Source::JsonPointer(_) | Source::Function(_) => {
                Err(format!("{self:?}"))
            }
        }
    }

    /// The key of a message; `None` for one that is in a lane of its own.
    pub(crate) fn text(&self, context: &Context) -> Result<Option<String>, DeadLetter> {
        let malformed = |detail| DeadLetter::new(DeadReason::Malformed, detail);
        let found = match &self.source {
            Source::Header(name) => match context.message().headers.value(name) {
                None => None,
                Some(value) => Some(key_of_header(name, value).map_err(malformed)?),
            },
            Source::CorrelationId => {
                context.meta().correlation_id.as_ref().map(|id| id.as_str().to_owned())
            }
            Source::Topic => Some(context.routing_key().to_owned()),
            Source::TopicWord(word) => {
                context.routing_key().split('.').nth(*word).map(str::to_owned)
            }
            Source::JsonPointer(pointer) => in_payload(pointer, context)?,
            Source::Function(function) => Some(call(function, context).map_err(malformed)?),
        };
        match (found.filter(|key| !key.is_empty()), self.missing) {
            (Some(key), _) => Ok(Some(key)),
            (None, MissingKey::Unordered) => Ok(None),
            (None, MissingKey::DeadLetter) => {
                Err(malformed(format!("nothing to put the message in order by: it has no {self}")))
            }
        }
    }
}

fn key_of_header(name: &str, value: &HeaderValue) -> Result<String, String> {
    let key = value.as_key().map(std::borrow::Cow::into_owned);
    key.ok_or_else(|| format!("the header {name:?} holds neither text nor a whole number"))
}

fn in_payload(pointer: &str, context: &Context) -> Result<Option<String>, DeadLetter> {
    let undecodable = |detail| DeadLetter::new(DeadReason::Undecodable, detail);
    let envelope = context.envelope().map_err(|error| {
        DeadLetter::new(error.dead_reason().unwrap_or(DeadReason::Undecodable), error.chain())
    })?;
    let payload: serde_json::Value =
        envelope.payload().map_err(|error| undecodable(error_chain(&error)))?;
    match payload.pointer(pointer) {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(text)) => Ok(Some(text.clone())),
        Some(serde_json::Value::Number(n)) if !n.is_f64() => Ok(Some(n.to_string())),
        Some(_) => {
            let detail = format!("the payload has neither text nor a whole number at {pointer:?}");
            Err(DeadLetter::new(DeadReason::Malformed, detail))
        }
    }
}

/// A function of the user's runs where nobody catches its panic otherwise.
fn call(function: &Arc<Function>, context: &Context) -> Result<String, String> {
    let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| function(context)));
    match called {
        Ok(Ok(key)) => Ok(key),
        Ok(Err(error)) => {
            Err(format!("failed to make the message's order key: {}", error_chain(&*error)))
        }
        Err(_) => Err("the function that makes the message's order key panicked".to_owned()),
    }
}

/// What is looked for, after "no".
impl fmt::Display for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Header(name) => write!(f, "header {name:?}"),
            Source::CorrelationId => f.write_str("correlation id"),
            Source::Topic => f.write_str("topic"),
            Source::TopicWord(word) => write!(f, "word {word} in its topic, counted from 0"),
            Source::JsonPointer(pointer) => write!(f, "{pointer:?} in its payload"),
            Source::Function(_) => f.write_str("key that the function would make"),
        }
    }
}

impl fmt::Debug for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Header(name) => write!(f, "OrderKey::header({name:?})"),
            Source::CorrelationId => f.write_str("OrderKey::correlation_id()"),
            Source::Topic => f.write_str("OrderKey::topic()"),
            Source::TopicWord(word) => write!(f, "OrderKey::topic_word({word})"),
            Source::JsonPointer(pointer) => write!(f, "OrderKey::json_pointer({pointer:?})"),
            Source::Function(_) => f.write_str("OrderKey::from_fn(…)"),
        }
    }
}
