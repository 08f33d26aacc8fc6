//! A handler's failure, and how errors are told.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::DeadReason;
use crate::reply::ReplyError;

/// An error of any type.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// A handler's failure: retried by default, unless it is marked permanent.
///
/// Any error becomes one with `?`:
///
/// ```
/// use mmate_core::{HandlerError, Permanent};
/// fn handle(quantity: &str) -> Result<u32, HandlerError> {
///     // A repetition would not mend it: straight to the dead letters.
///     let quantity: u32 = quantity.parse().permanent()?;
///     Ok(quantity)
/// }
/// assert!(handle("many").unwrap_err().is_permanent());
/// ```
#[derive(Debug)]
pub struct HandlerError {
    source: BoxError,
    class: ErrorClass,
    answer: Option<Box<ReplyError>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorClass {
    Retryable { after: Option<Duration> },
    Permanent(DeadReason),
}

impl HandlerError {
    /// A failure that may pass: another attempt is made.
    pub fn retryable(error: impl Into<BoxError>) -> Self {
        Self { source: error.into(), class: ErrorClass::Retryable { after: None }, answer: None }
    }

    /// A failure that no repetition mends: the message becomes a dead letter.
    pub fn permanent(error: impl Into<BoxError>) -> Self {
        Self::dead(DeadReason::Permanent, error)
    }

    /// As [`permanent`](Self::permanent), with another reason.
    pub fn dead(reason: DeadReason, error: impl Into<BoxError>) -> Self {
        Self { source: error.into(), class: ErrorClass::Permanent(reason), answer: None }
    }

    /// What whoever asked is told, if this is an answer and no failure.
    #[must_use]
    pub fn reply(&self) -> Option<&ReplyError> {
        self.answer.as_deref()
    }

    /// The same failure once more, for each of several messages that it befell together.
    pub(crate) fn shared(error: &Arc<Self>) -> Self {
        let answer = error.answer.clone();
        Self { class: error.class, source: Box::new(Shared(Arc::clone(error))), answer }
    }

    /// Sets when the next attempt is made, instead of what the retry policy says.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        if let ErrorClass::Retryable { .. } = self.class {
            self.class = ErrorClass::Retryable { after: Some(after) };
        }
        self
    }

    /// Whether no repetition mends it.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self.class, ErrorClass::Permanent(_))
    }

    /// Why the message becomes a dead letter, if no repetition mends it.
    #[must_use]
    pub fn dead_reason(&self) -> Option<DeadReason> {
        match self.class {
            ErrorClass::Permanent(reason) => Some(reason),
            ErrorClass::Retryable { .. } => None,
        }
    }

    pub(crate) fn delay(&self) -> Option<Duration> {
        match self.class {
            ErrorClass::Retryable { after } => after,
            ErrorClass::Permanent(_) => None,
        }
    }

    /// The error itself.
    #[must_use]
    pub fn source(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.source
    }

    /// The error and its causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        error_chain(&*self.source)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

/// An error that several messages have in common.
#[derive(Debug)]
struct Shared(Arc<HandlerError>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.source, f)
    }
}

impl Error for Shared {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Error::source(&*self.0.source)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retryable(error)
    }
}

/// An answer to whoever asked. For a message that nobody waits for a reply to it is a permanent
/// failure.
impl From<ReplyError> for HandlerError {
    fn from(error: ReplyError) -> Self {
        let answer = Some(Box::new(error.clone()));
        Self { answer, ..Self::permanent(error.to_string()) }
    }
}

/// Marks the error of a [`Result`] as one that no repetition mends.
pub trait Permanent<T> {
    /// Turns the error into a permanent [`HandlerError`].
    ///
    /// # Errors
    /// The same as before.
    fn permanent(self) -> Result<T, HandlerError>;
}

impl<T, E: Into<BoxError>> Permanent<T> for Result<T, E> {
    fn permanent(self) -> Result<T, HandlerError> {
        self.map_err(HandlerError::permanent)
    }
}

/// A text of an error, cut to what logs and headers take.
pub(crate) fn brief(mut text: String) -> String {
    const LONGEST: usize = 1_024;
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// An error and its causes in one line.
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more: Cow<'_, str> = error.to_string().into();
        // Some errors repeat their cause in their own text.
        if !text.contains(&*more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_is_retryable_until_it_is_marked() {
        let plain: HandlerError = std::io::Error::other("disk").into();
        assert!(!plain.is_permanent());
        let marked = Err::<(), _>(std::io::Error::other("disk")).permanent().unwrap_err();
        assert!(marked.is_permanent());
        assert_eq!(marked.retry_after(Duration::from_secs(1)).delay(), None);
    }
}
