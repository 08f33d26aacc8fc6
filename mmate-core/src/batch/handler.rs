//! Async functions of a batch.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;

use super::{Assembly, Batch, BatchOutcome, IntoBatchOutcome};
use crate::context::Extensions;
use crate::handler::{FromContext, Requirement, State};
use crate::outcome::HandlerError;

/// An async function that takes a [`Batch`] and up to three arguments of the whole batch
/// ([`FromBatch`]), and whose result is `Result<(), HandlerError>` or
/// `Result<BatchOutcome, HandlerError>`.
///
/// Implemented for functions and closures; there is no need to implement it by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch handler",
    label = "not a batch handler",
    note = "a batch handler is an async function of a `Batch<T>` and up to three of `State<S>` and \
            `Tx<DB>`, which returns `Result<(), HandlerError>` or `Result<BatchOutcome, \
            HandlerError>`; what belongs to one message (`Meta`, `Publisher`, …) is asked of each \
            item"
)]
pub trait BatchHandler<Args>: Send + Sync + 'static {
    /// The payload's type.
    type Payload: DeserializeOwned + Send + Sync + 'static;

    /// Runs the function.
    fn call<'a>(
        &'a self,
        batch: Batch<Self::Payload>,
        context: &'a BatchContext,
    ) -> BoxFuture<'a, Result<BatchOutcome, HandlerError>>;

    /// What the arguments need from the service.
    fn requirements() -> Vec<Requirement>;
}

/// What a batch handler may take beside its [`Batch`]: something of the whole batch.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a batch handler",
    label = "not an argument of a whole batch",
    note = "a batch handler takes `State<S>` and `Tx<DB>`; what belongs to one message is asked of \
            each item of the batch"
)]
pub trait FromBatch: Sized + Send {
    /// Makes the argument.
    ///
    /// # Errors
    /// The handler is then not entered, and the error is that of each message.
    fn from_batch(context: &BatchContext) -> Result<Self, HandlerError>;

    /// What must be there for this to work, checked when the service starts.
    #[must_use]
    fn requirement() -> Option<Requirement> {
        None
    }
}

/// What is known of a whole batch.
pub struct BatchContext {
    pub(super) state: Arc<Extensions>,
    pub(super) assembly: Option<Assembly>,
}

impl BatchContext {
    /// A value of the service's state ([`Service::state`](crate::Service::state)).
    #[must_use]
    pub fn state<S: Send + Sync + 'static>(&self) -> Option<&S> {
        self.state.value()
    }

    /// What middleware that has assembled the batch gave to it; see [`Assembly`].
    #[must_use]
    pub fn value<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.assembly.as_ref()?.value()
    }
}

impl fmt::Debug for BatchContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchContext").field("assembly", &self.assembly).finish_non_exhaustive()
    }
}

impl<S: Clone + Send + Sync + 'static> FromBatch for State<S> {
    fn from_batch(context: &BatchContext) -> Result<Self, HandlerError> {
        // That it is there is checked when the service starts.
        let missing = || format!("no state of type {} was given", std::any::type_name::<S>());
        let state = context.state::<S>().cloned().map(Self);
        state.ok_or_else(|| HandlerError::permanent(missing()))
    }

    fn requirement() -> Option<Requirement> {
        <Self as FromContext>::requirement()
    }
}

macro_rules! batch_handler_of {
    ($($A:ident $argument:ident),*) => {
        impl<F, Fut, T, R, E, $($A,)*> BatchHandler<(Batch<T>, $($A,)*)> for F
        where
            F: Fn(Batch<T>, $($A,)*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<R, E>> + Send,
            T: DeserializeOwned + Send + Sync + 'static,
            R: IntoBatchOutcome,
            E: Into<HandlerError>,
            $($A: FromBatch,)*
        {
            type Payload = T;

            fn call<'a>(
                &'a self,
                batch: Batch<T>,
                context: &'a BatchContext,
            ) -> BoxFuture<'a, Result<BatchOutcome, HandlerError>> {
                // A handler without further arguments has no use for it.
                let _ = context;
                Box::pin(async move {
                    $(let $argument = $A::from_batch(context)?;)*
                    let done = self(batch, $($argument,)*).await;
                    done.map(IntoBatchOutcome::into_batch_outcome).map_err(Into::into)
                })
            }

            fn requirements() -> Vec<Requirement> {
                let all: Vec<Option<Requirement>> =
                    vec![$(<$A as FromBatch>::requirement(),)*];
                all.into_iter().flatten().collect()
            }
        }
    };
}

batch_handler_of!();
batch_handler_of!(A1 a1);
batch_handler_of!(A1 a1, A2 a2);
batch_handler_of!(A1 a1, A2 a2, A3 a3);
