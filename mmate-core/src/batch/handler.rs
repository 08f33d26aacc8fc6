//! Async functions of a batch.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;

use super::{Batch, BatchOutcome, IntoBatchOutcome};
use crate::context::Extensions;
use crate::handler::{FromContext, Requirement, State};
use crate::outcome::HandlerError;

/// An async function that takes a [`Batch`] and up to three [`State`]s, and whose result is
/// `Result<(), HandlerError>` or `Result<BatchOutcome, HandlerError>`.
///
/// Implemented for functions and closures; there is no need to implement it by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch handler",
    label = "not a batch handler",
    note = "a batch handler is an async function of a `Batch<T>` and up to three `State<S>`, which \
            returns `Result<(), HandlerError>` or `Result<BatchOutcome, HandlerError>`; what \
            belongs to one message (`Meta`, `Publisher`, …) is asked of each item"
)]
pub trait BatchHandler<Args>: Send + Sync + 'static {
    /// The payload's type.
    type Payload: DeserializeOwned + Send + Sync + 'static;

    /// Runs the function.
    fn call<'a>(
        &'a self,
        batch: Batch<Self::Payload>,
        state: &'a ServiceState,
    ) -> BoxFuture<'a, Result<BatchOutcome, HandlerError>>;

    /// What the arguments need from the service.
    fn requirements() -> Vec<Requirement>;
}

/// The values that were given to a service with [`Service::state`](crate::Service::state).
#[derive(Debug)]
pub struct ServiceState(pub(super) Arc<Extensions>);

macro_rules! batch_handler_of {
    ($($S:ident $state:ident),*) => {
        impl<F, Fut, T, R, E, $($S,)*> BatchHandler<(Batch<T>, $(State<$S>,)*)> for F
        where
            F: Fn(Batch<T>, $(State<$S>,)*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<R, E>> + Send,
            T: DeserializeOwned + Send + Sync + 'static,
            R: IntoBatchOutcome,
            E: Into<HandlerError>,
            $($S: Clone + Send + Sync + 'static,)*
        {
            type Payload = T;

            fn call<'a>(
                &'a self,
                batch: Batch<T>,
                state: &'a ServiceState,
            ) -> BoxFuture<'a, Result<BatchOutcome, HandlerError>> {
                // A handler without state has no use for it.
                let _ = state;
                Box::pin(async move {
                    $(let $state = State(state_of::<$S>(state)?);)*
                    let done = self(batch, $($state,)*).await;
                    done.map(IntoBatchOutcome::into_batch_outcome).map_err(Into::into)
                })
            }

            fn requirements() -> Vec<Requirement> {
                let all: Vec<Option<Requirement>> = vec![$(State::<$S>::requirement(),)*];
                all.into_iter().flatten().collect()
            }
        }
    };
}

batch_handler_of!();
batch_handler_of!(S1 s1);
batch_handler_of!(S1 s1, S2 s2);
batch_handler_of!(S1 s1, S2 s2, S3 s3);

/// That it is there is checked when the service starts.
fn state_of<S: Clone + Send + Sync + 'static>(state: &ServiceState) -> Result<S, HandlerError> {
    let missing = || format!("no state of type {} was given", std::any::type_name::<S>());
    state.0.value::<S>().cloned().ok_or_else(|| HandlerError::permanent(missing()))
}
