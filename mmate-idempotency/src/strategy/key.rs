//! What a message is recognised by.

use std::fmt;
use std::sync::Arc;

use mmate_core::{BoxError, Context};

/// What a message is recognised by, within its scope.
///
/// It is read from properties and headers where possible; a duplicate then costs no decoding of
/// the payload. A key has 1 to 255 bytes and no control characters; a message with another one is
/// dead-lettered as `malformed`.
///
/// ```
/// use mmate_idempotency::{Key, MemoryStore, Tracked};
///
/// // The client's own key, as HTTP gateways pass it on.
/// let by_header = Tracked::new(MemoryStore::new()).key(Key::header("idempotency-key"));
/// // The day's report of a tenant, whatever message asks for it.
/// let by_function = Tracked::new(MemoryStore::new()).key(Key::from_fn(|context| {
///     let tenant = context.message().headers.text("tenant").ok_or("no tenant")?;
///     let day = context.message().headers.text("day").ok_or("no day")?;
///     Ok::<_, &str>(format!("{}:{tenant}{day}", tenant.len()))
/// }));
/// # let _ = (by_header, by_function);
/// ```
#[derive(Clone)]
pub struct Key(Source);

#[derive(Clone)]
enum Source {
    MessageId,
    Header(Arc<str>),
    CorrelationAndType,
    Function(Arc<Function>),
}

type Function = dyn Fn(&Context) -> Result<String, BoxError> + Send + Sync;

impl Key {
    /// The message's id. The default.
    #[must_use]
    pub fn message_id() -> Self {
        Self(Source::MessageId)
    }

    /// The text, or the whole number, in a header. A message without that header is one without
    /// an id; see [`MissingId`].
    #[must_use]
    pub fn header(name: impl Into<Arc<str>>) -> Self {
        Self(Source::Header(name.into()))
    }

    /// The correlation id together with the message's type: one message of a type in each
    /// conversation takes effect.
    #[must_use]
    pub fn correlation_and_type() -> Self {
        Self(Source::CorrelationAndType)
    }

    /// What a function makes of the message. If it fails, the message is dead-lettered as
    /// `malformed`.
    ///
    /// It must give the same text for the same message each time, and so use neither chance nor
    /// the time of day. Where it joins several texts, it must do so without ambiguity: `a:b` with
    /// `c` is not `a` with `b:c`.
    #[must_use]
    pub fn from_fn<F, E>(function: F) -> Self
    where
        F: Fn(&Context) -> Result<String, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        Self(Source::Function(Arc::new(move |context| function(context).map_err(Into::into))))
    }

    /// The key's text; `None` if the message has none.
    pub(super) fn text(&self, context: &Context) -> Result<Option<String>, KeyError> {
        match &self.0 {
            Source::MessageId => Ok(context.message_id().map(ToString::to_string)),
            Source::Header(name) => match context.message().headers.value(name) {
                None => Ok(None),
                Some(value) => match value.as_key() {
                    Some(text) => Ok(Some(text.into_owned())),
                    None => Err(KeyError::NotText { header: Arc::clone(name) }),
                },
            },
            Source::CorrelationAndType => {
                let message_type = context.message_type();
                let correlation = context.meta().correlation_id.as_ref();
                Ok(correlation.filter(|_| !message_type.is_empty()).map(|correlation| {
                    format!("{}:{correlation}{message_type}", correlation.as_str().len())
                }))
            }
            Source::Function(function) => function(context).map(Some).map_err(KeyError::Function),
        }
    }

    pub(super) fn is_message_id(&self) -> bool {
        matches!(self.0, Source::MessageId)
    }

    /// What is missing in a message that has no key.
    pub(super) fn what_is_missing(&self) -> String {
        match &self.0 {
            Source::MessageId => "the message has no id".to_owned(),
            Source::Header(name) => format!("the message has no header {name:?}"),
            Source::CorrelationAndType => {
                "the message has no correlation id, or no type".to_owned()
            }
            Source::Function(_) => "the message has no key".to_owned(),
        }
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::message_id()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::MessageId => f.write_str("Key::message_id()"),
            Source::Header(name) => write!(f, "Key::header({name:?})"),
            Source::CorrelationAndType => f.write_str("Key::correlation_and_type()"),
            Source::Function(_) => f.write_str("Key::from_fn(…)"),
        }
    }
}

/// Why a message's key cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("the header {header:?} holds neither text nor a whole number")]
    NotText { header: Arc<str> },
    #[error("failed to make the message's key")]
    Function(#[source] BoxError),
}

/// What becomes of a message that has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MissingId {
    /// It is dead-lettered as `missing-id`. The default.
    #[default]
    DeadLetter,
    /// It is recognised by its content: its type and payload. Two messages that are meant to take
    /// effect both, but are equal, then count as one.
    FromContent,
    /// It is handled without protection, and counted as `unprotected`.
    Unprotected,
}
