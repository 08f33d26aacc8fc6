//! Answers to requests, as a handler gives them.

mod address;
mod send;

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

pub use address::RefusedReplyAddress;
pub(crate) use address::ReplyPolicy;
pub use send::LostReplies;
pub(crate) use send::{Answering, answer};

use crate::outcome::{DeadLetter, DeadReason, IntoOutcome, Outcome};

/// What a handler returns to answer a request.
///
/// The answer is published to the queue that the request names, and only when the broker has it
/// the request is acknowledged. A message that names no such queue is handled all the same.
///
/// ```
/// use mmate_core::{HandlerError, Json, Reply, ReplyError, Subscription};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Deserialize)] struct PriceOf { sku: String }
/// # #[derive(Serialize)] struct Price { cents: u64 }
/// async fn price(Json(of): Json<PriceOf>) -> Result<Reply<Price>, HandlerError> {
///     if of.sku != "A-1" {
///         return Err(ReplyError::new("unknown-sku", "there is no such article").into());
///     }
///     Ok(Reply(Price { cents: 995 }))
/// }
///
/// let subscription = Subscription::queries("prices", ["GetPrice"]).handler(price);
/// # let _ = subscription;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is made where a handler returns")]
pub struct Reply<T>(pub T);

impl<T: Serialize> IntoOutcome for Reply<T> {
    const ANSWERS: bool = true;

    fn into_outcome(self) -> Outcome {
        Answer::success(&self.0).map_or_else(
            |error| {
                let what = std::any::type_name::<T>();
                let detail = format!("the reply, a {what}, is not representable in JSON: {error}");
                Outcome::DeadLetter(DeadLetter::new(DeadReason::Permanent, detail))
            },
            Outcome::Answered,
        )
    }
}

/// A failure that is an answer: whoever asked is told, and the request is acknowledged. It is not
/// tried again and not dead-lettered.
///
/// Code, message and details are sent as they are given here; nothing else of a handler's errors
/// ever is. A handler returns it as its error, with `?` or `.into()`. For a message that nobody
/// waits for a reply to, it is a permanent failure instead.
///
/// ```
/// use mmate_core::{HandlerError, ReplyError};
/// fn reserve(wanted: u32, stock: u32) -> Result<(), HandlerError> {
///     if wanted > stock {
///         let error = ReplyError::new("out-of-stock", "there are not as many left");
///         return Err(error.details(&stock).into());
///     }
///     Ok(())
/// }
/// assert_eq!(reserve(3, 2).unwrap_err().reply().unwrap().code(), "out-of-stock");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyError {
    code: String,
    message: String,
    details: Option<Value>,
}

impl ReplyError {
    /// A failure by a code for programs and a message for people.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), details: None }
    }

    /// Adds what else the requester may want to know. What is not representable in JSON is left
    /// out.
    #[must_use]
    pub fn details<T: Serialize + ?Sized>(mut self, details: &T) -> Self {
        self.details = serde_json::to_value(details).ok();
        self
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What whoever asked is told of a dead letter. Its detail is not for strangers.
    pub(crate) fn of(letter: &DeadLetter) -> Self {
        let message = match letter.reason {
            DeadReason::AttemptsExhausted => "every attempt at handling the request failed",
            DeadReason::Undecodable => "the request is not of the shape that is expected here",
            DeadReason::Malformed => "the request contradicts itself",
            DeadReason::MissingId => "the request has no id",
            DeadReason::Conflict => "the id of the request was used before with other content",
            _ => "the request cannot be handled",
        };
        Self::new(letter.reason.as_str(), message)
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// An answer on its way from the handler out through the middleware, which may keep it for copies of
/// the request. It is sent when it comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    success: bool,
    payload: Bytes,
}

impl Answer {
    /// The answer of a handler that succeeded.
    ///
    /// # Errors
    /// When the payload is not representable in JSON.
    pub fn success<T: Serialize + ?Sized>(payload: &T) -> Result<Self, serde_json::Error> {
        Ok(Self { success: true, payload: serde_json::to_vec(payload)?.into() })
    }

    /// The answer that says why there is no other.
    #[must_use]
    pub fn failure(error: &ReplyError) -> Self {
        let mut payload = serde_json::json!({
            "success": false,
            "errorCode": error.code,
            "errorMessage": error.message,
        });
        if let Some(details) = &error.details {
            payload["errorDetails"] = details.clone();
        }
        Self { success: false, payload: payload.to_string().into() }
    }

    /// An answer as a store has kept it; `payload` is what [`payload`](Self::payload) gave.
    #[must_use]
    pub fn kept(success: bool, payload: impl Into<Bytes>) -> Self {
        Self { success, payload: payload.into() }
    }

    /// Whether it is one of success.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.success
    }

    /// The payload, as JSON.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }
}
