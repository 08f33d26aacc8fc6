//! Where a message stands in its sequence.

use std::fmt;
use std::sync::Arc;

use mmate_core::{BoxError, Context};

/// Where a message stands: in which sequence, and with which number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a place is named by these two")]
pub struct Place {
    /// What is numbered, such as a conversation.
    pub key: String,
    /// From 1, without gaps.
    pub number: u64,
}

/// Where a message says which place it has.
///
/// ```
/// use mmate_idempotency::sequence::{Place, SequenceKey};
///
/// let by_headers = SequenceKey::headers("conversation", "number");
/// // Messages of other kinds have no place, and are handled as they come.
/// let own = SequenceKey::from_fn(|context| {
///     let Some(number) = context.message().headers.int("line") else { return Ok(None) };
///     let key = context.routing_key().to_owned();
///     Ok::<_, std::num::TryFromIntError>(Some(Place { key, number: u64::try_from(number)? }))
/// });
/// # let _ = (by_headers, own);
/// ```
#[derive(Clone)]
pub struct SequenceKey(Source);

#[derive(Clone)]
enum Source {
    Headers { key: Arc<str>, number: Arc<str> },
    Function(Arc<Function>),
}

type Function = dyn Fn(&Context) -> Result<Option<Place>, BoxError> + Send + Sync;

impl SequenceKey {
    /// In two headers: the key as text or a whole number, and the number, as a whole number or its
    /// digits. A message without either is handled as it comes; one with only one of them, or with
    /// a number below 1, is dead-lettered as `malformed`.
    #[must_use]
    pub fn headers(key: impl Into<Arc<str>>, number: impl Into<Arc<str>>) -> Self {
        Self(Source::Headers { key: key.into(), number: number.into() })
    }

    /// What a function makes of the message; `None` for one that is in no sequence. If it fails, the
    /// message is dead-lettered as `malformed`.
    #[must_use]
    pub fn from_fn<F, E>(function: F) -> Self
    where
        F: Fn(&Context) -> Result<Option<Place>, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        Self(Source::Function(Arc::new(move |context| function(context).map_err(Into::into))))
    }

    pub(super) fn place(&self, context: &Context) -> Result<Option<Place>, BoxError> {
        let (key, number) = match &self.0 {
            Source::Function(function) => return function(context),
            Source::Headers { key, number } => (key, number),
        };
        let text = |name: &str| {
            let value = context.message().headers.value(name)?;
            value.as_key().map(std::borrow::Cow::into_owned)
        };
        match (text(key), text(number)) {
            (None, None) => Ok(None),
            (Some(key), Some(digits)) => match digits.parse() {
                Ok(number @ 1..) => Ok(Some(Place { key, number })),
                _ => {
                    Err(format!("the header {number:?} holds {digits:?}, no number from 1").into())
                }
            },
            (None, Some(_)) => Err(format!("the header {key:?} is missing").into()),
            (Some(_), None) => Err(format!("the header {number:?} is missing").into()),
        }
    }
}

impl fmt::Debug for SequenceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Headers { key, number } => {
                write!(f, "SequenceKey::headers({key:?}, {number:?})")
            }
            Source::Function(_) => f.write_str("SequenceKey::from_fn(…)"),
        }
    }
}
