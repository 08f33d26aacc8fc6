//! Extractors: what a handler may take as an argument.

use std::future::{Future, ready};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::Requirement;
use crate::context::Context;
use crate::message::{Envelope, Meta};
use crate::outcome::{DeadReason, HandlerError};
use crate::publisher::Publisher;

/// What a handler may take as an argument: it is made from the context of the message.
///
/// ```
/// use mmate_core::{Context, FromContext, HandlerError};
///
/// /// The tenant that a header names.
/// struct Tenant(String);
///
/// impl FromContext for Tenant {
///     async fn from_context(context: &Context) -> Result<Self, HandlerError> {
///         let tenant = context.message().headers.text("tenant");
///         tenant.map(|t| Tenant(t.to_owned())).ok_or_else(|| HandlerError::permanent("no tenant"))
///     }
/// }
///
/// async fn greet(Tenant(tenant): Tenant) -> Result<(), HandlerError> {
///     println!("hello {tenant}");
///     Ok(())
/// }
/// # let _ = greet;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler",
    label = "not an extractor",
    note = "extractors are `Json<T>`, `Meta`, `Envelope`, `Body`, `Attempt`, `State<S>`, \
            `Publisher`, `Tx<DB>` and your own types that implement `FromContext`"
)]
pub trait FromContext: Sized + Send {
    /// Makes the argument.
    ///
    /// # Errors
    /// The handler is then not entered, and the error is treated as if it had returned it.
    fn from_context(context: &Context) -> impl Future<Output = Result<Self, HandlerError>> + Send;

    /// What must be there for this to work, checked when the service starts.
    #[must_use]
    fn requirement() -> Option<Requirement> {
        None
    }
}

/// The payload, decoded from JSON. A payload of another shape is dead-lettered as `undecodable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is taken apart in a handler's arguments")]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + Send> FromContext for Json<T> {
    fn from_context(context: &Context) -> impl Future<Output = Result<Self, HandlerError>> + Send {
        ready(context.envelope().and_then(|envelope| {
            envelope
                .payload()
                .map(Self)
                .map_err(|error| HandlerError::dead(DeadReason::Undecodable, error))
        }))
    }
}

/// The whole body as the broker carried it, not decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is taken apart in a handler's arguments")]
pub struct Body(pub Bytes);

impl FromContext for Body {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(Self(context.message().body.clone()))
    }
}

/// Which attempt this is, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "it is taken apart in a handler's arguments")]
pub struct Attempt(pub u32);

impl FromContext for Attempt {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(Self(context.attempt()))
    }
}

/// A clone of a value given to [`Service::state`](crate::Service::state). That it was given is
/// checked when the service starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is taken apart in a handler's arguments")]
pub struct State<S>(pub S);

impl<S: Clone + Send + Sync + 'static> FromContext for State<S> {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        let state = context.state::<S>().cloned().map(Self);
        state.ok_or_else(|| HandlerError::permanent(format!("no {} was given", name_of::<S>())))
    }

    fn requirement() -> Option<Requirement> {
        Some(Requirement::new::<S>(
            format!("State<{}>", name_of::<S>()),
            format!("give it to the service with .state(…) of type {}", name_of::<S>()),
        ))
    }
}

fn name_of<T>() -> &'static str {
    std::any::type_name::<T>()
}

impl FromContext for Meta {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(context.meta().clone())
    }
}

impl FromContext for Envelope {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        context.envelope().cloned()
    }
}

impl FromContext for Publisher {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(context.publisher().clone())
    }
}
