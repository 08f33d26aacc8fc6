//! What a message is recognised by.

use std::fmt;
use std::sync::Arc;

use mmate_core::{BoxError, Context, DeadReason, HandlerError};
use serde_json::Value;

/// What a message is recognised by, within its scope.
///
/// It is read from properties and headers where possible; a duplicate then costs no decoding of
/// the payload. A key has 1 to 255 bytes and no control characters; a message with another one is
/// dead-lettered as `malformed`. Keys are compared byte by byte: `abc`, `ABC` and `abc ` are three.
///
/// ```
/// use mmate_idempotency::{Key, MemoryStore, Tracked};
///
/// // The client's own key, as HTTP gateways pass it on.
/// let by_header = Tracked::new(MemoryStore::new()).key(Key::header("idempotency-key"));
/// // The day's report of a tenant, whatever message asks for it.
/// let by_parts = Tracked::new(MemoryStore::new())
///     .key(Key::all([Key::header("tenant"), Key::json_pointer("/report/day")]));
/// // Whatever else there is.
/// let by_function = Tracked::new(MemoryStore::new()).key(Key::from_fn(|context| {
///     let topic = context.routing_key().split('.').next().ok_or("no topic")?;
///     Ok::<_, &str>(topic.to_owned())
/// }));
/// # let _ = by_parts;
/// # let _ = (by_header, by_function);
/// ```
#[derive(Clone)]
pub struct Key(Source);

#[derive(Clone)]
enum Source {
    MessageId,
    Header(Arc<str>),
    CorrelationAndType,
    JsonPointer(Arc<str>),
    All(Arc<[Key]>),
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

    /// The text, or the whole number, at a place in the payload, as a JSON pointer (RFC 6901) such
    /// as `/order/id` names it. A message with nothing or `null` there is one without an id; see
    /// [`MissingId`]. With anything else there (a fraction, a list, …) it is dead-lettered as
    /// `malformed`, and if its body is no envelope as `undecodable`.
    ///
    /// **The payload of every message is decoded for this**, a duplicate's too; a header is cheaper.
    /// The text `7` and the number `7` are the same key.
    #[must_use]
    pub fn json_pointer(pointer: impl Into<Arc<str>>) -> Self {
        Self(Source::JsonPointer(pointer.into()))
    }

    /// Several keys together, each with its length before it, so that `a:b` with `c` is not `a` with
    /// `b:c`. A message that lacks one of them is one without an id; see [`MissingId`].
    ///
    /// ```
    /// use mmate_idempotency::Key;
    /// // `4:acme2:eu`
    /// let key = Key::all([Key::header("tenant"), Key::header("region")]);
    /// # let _ = key;
    /// ```
    #[must_use]
    pub fn all(keys: impl IntoIterator<Item = Self>) -> Self {
        Self(Source::All(keys.into_iter().collect()))
    }

    /// What a function makes of the message. If it fails, the message is dead-lettered as
    /// `malformed`.
    ///
    /// It must give the same text for the same message each time, and so use neither chance nor
    /// the time of day. To join several texts without ambiguity, use [`Key::all`].
    #[must_use]
    pub fn from_fn<F, E>(function: F) -> Self
    where
        F: Fn(&Context) -> Result<String, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        Self(Source::Function(Arc::new(move |context| function(context).map_err(Into::into))))
    }

    /// The key's text; `None` if the message has none.
    ///
    /// # Errors
    /// Permanent ones.
    pub(super) fn text(&self, context: &Context) -> Result<Option<String>, HandlerError> {
        let malformed = |error: KeyError| HandlerError::dead(DeadReason::Malformed, error);
        match &self.0 {
            Source::MessageId => Ok(context.message_id().map(ToString::to_string)),
            Source::Header(name) => match context.message().headers.value(name) {
                None => Ok(None),
                Some(value) => match value.as_key() {
                    Some(text) => Ok(Some(text.into_owned())),
                    None => Err(malformed(KeyError::HeaderNotText { header: Arc::clone(name) })),
                },
            },
            Source::CorrelationAndType => {
                let message_type = context.message_type();
                let correlation = context.meta().correlation_id.as_ref();
                Ok(correlation.filter(|_| !message_type.is_empty()).map(|correlation| {
                    format!("{}:{correlation}{message_type}", correlation.as_str().len())
                }))
            }
            Source::JsonPointer(pointer) => in_payload(context, pointer),
            Source::All(keys) => {
                let mut joined = String::new();
                for key in keys.iter() {
                    let Some(text) = key.text(context)? else { return Ok(None) };
                    joined.push_str(&text.len().to_string());
                    joined.push(':');
                    joined.push_str(&text);
                }
                Ok(Some(joined))
            }
            Source::Function(function) => {
                function(context).map(Some).map_err(|error| malformed(KeyError::Function(error)))
            }
        }
    }

    /// Why this can be no message's key, if it cannot.
    pub(super) fn problem(&self) -> Option<String> {
        match &self.0 {
            Source::Header(name) if name.is_empty() => {
                Some("the header that a key is to come from has no name".to_owned())
            }
            Source::JsonPointer(pointer) if !is_pointer(pointer) => Some(format!(
                "{pointer:?} is no JSON pointer: it is to begin with /, as in \"/order/id\", with ~1 \
                 for a / and ~0 for a ~ within a name"
            )),
            Source::All(keys) if keys.is_empty() => {
                Some("Key::all([]) is the same key for every message".to_owned())
            }
            Source::All(keys) => keys.iter().find_map(Self::problem),
            _ => None,
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
            Source::JsonPointer(pointer) => {
                format!("the message has nothing at {pointer:?} in its payload")
            }
            Source::All(_) => format!("the message does not have all of {self:?}"),
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
            Source::JsonPointer(pointer) => write!(f, "Key::json_pointer({pointer:?})"),
            Source::All(keys) => write!(f, "Key::all({keys:?})"),
            Source::Function(_) => f.write_str("Key::from_fn(…)"),
        }
    }
}

fn in_payload(context: &Context, pointer: &Arc<str>) -> Result<Option<String>, HandlerError> {
    let payload: Value = context
        .envelope()?
        .payload()
        .map_err(|error| HandlerError::dead(DeadReason::Undecodable, error))?;
    match payload.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string())),
        Some(Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            let error = KeyError::PayloadNotText { pointer: Arc::clone(pointer) };
            Err(HandlerError::dead(DeadReason::Malformed, error))
        }
    }
}

/// RFC 6901: empty, or names that each follow a `/`.
fn is_pointer(text: &str) -> bool {
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    escapes && (text.is_empty() || text.starts_with('/'))
}

/// Why a message's key cannot be told.
#[derive(Debug, thiserror::Error)]
enum KeyError {
    #[error("the header {header:?} holds neither text nor a whole number")]
    HeaderNotText { header: Arc<str> },
    #[error("the payload has neither text nor a whole number at {pointer:?}")]
    PayloadNotText { pointer: Arc<str> },
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
