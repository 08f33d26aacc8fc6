//! Handlers: async functions of extractors.

mod extract;

use std::any::TypeId;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use extract::{Attempt, Body, FromContext, Json, State};

use crate::batch::{BatchHandler, BatchPolicy, Batching, Gatherer};
use crate::context::Context;
use crate::outcome::{HandlerError, IntoOutcome, Outcome};
use crate::reply::Answer;

/// An async function whose arguments are extractors ([`FromContext`]) and whose result is
/// `Result<(), HandlerError>`, `Result<Reply<T>, HandlerError>` or `Result<Outcome, HandlerError>`.
///
/// Implemented for functions and closures of up to eight arguments; there is no need to implement
/// it by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not a handler",
    note = "a handler is an async function whose arguments all implement `FromContext` (`Json<T>`, \
            `Meta`, `State<S>`, `Publisher`, `Tx<DB>`, …) and which returns \
            `Result<(), HandlerError>`, `Result<Reply<T>, HandlerError>` or \
            `Result<Outcome, HandlerError>`"
)]
pub trait Handler<Args>: Send + Sync + 'static {
    /// Extracts the arguments, and runs the function.
    fn call<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<Outcome, HandlerError>>;

    /// What the arguments need from the subscription or the service.
    fn requirements() -> Vec<Requirement>;

    /// Whether it answers requests.
    fn answers() -> bool;
}

/// Something that an extractor needs and that only a middleware or the service's state can give.
/// Whether it is there is checked when the service starts.
#[derive(Debug, Clone)]
pub struct Requirement {
    pub(crate) provided_by: TypeId,
    pub(crate) extractor: String,
    pub(crate) mend: String,
}

impl Requirement {
    /// The extractor needs what `Provider` stands for: a state's type, or a type that a
    /// middleware names in [`provides`](crate::Middleware::provides). `extractor` is the argument
    /// as the user wrote it, `mend` what to do if it is missing.
    #[must_use]
    pub fn new<Provider: 'static>(extractor: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            provided_by: TypeId::of::<Provider>(),
            extractor: extractor.into(),
            mend: mend.into(),
        }
    }
}

macro_rules! handler_of {
    ($($Arg:ident $arg:ident),*) => {
        impl<F, Fut, T, E, $($Arg,)*> Handler<($($Arg,)*)> for F
        where
            F: Fn($($Arg,)*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<T, E>> + Send,
            T: IntoOutcome,
            E: Into<HandlerError>,
            $($Arg: FromContext,)*
        {
            fn call<'a>(
                &'a self,
                context: &'a Context,
            ) -> BoxFuture<'a, Result<Outcome, HandlerError>> {
                // A handler without arguments has no use for it.
                let _ = context;
                Box::pin(async move {
                    $(let $arg = $Arg::from_context(context).await?;)*
                    self($($arg,)*).await.map(IntoOutcome::into_outcome).map_err(Into::into)
                })
            }

            fn answers() -> bool {
                T::ANSWERS
            }

            fn requirements() -> Vec<Requirement> {
                let all: Vec<Option<Requirement>> = vec![$($Arg::requirement(),)*];
                all.into_iter().flatten().collect()
            }
        }
    };
}

handler_of!();
handler_of!(A1 a1);
handler_of!(A1 a1, A2 a2);
handler_of!(A1 a1, A2 a2, A3 a3);
handler_of!(A1 a1, A2 a2, A3 a3, A4 a4);
handler_of!(A1 a1, A2 a2, A3 a3, A4 a4, A5 a5);
handler_of!(A1 a1, A2 a2, A3 a3, A4 a4, A5 a5, A6 a6);
handler_of!(A1 a1, A2 a2, A3 a3, A4 a4, A5 a5, A6 a6, A7 a7);
handler_of!(A1 a1, A2 a2, A3 a3, A4 a4, A5 a5, A6 a6, A7 a7, A8 a8);

/// A handler whose arguments are forgotten.
#[derive(Clone)]
pub(crate) struct AnyHandler {
    call: Arc<dyn Call>,
    requirements: Arc<[Requirement]>,
    answers: bool,
    batching: Option<Arc<dyn Batching>>,
}

trait Call: Send + Sync {
    fn call<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<Outcome, HandlerError>>;
}

struct Typed<H, Args>(H, std::marker::PhantomData<fn(Args)>);

impl<H: Handler<Args>, Args: 'static> Call for Typed<H, Args> {
    fn call<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<Outcome, HandlerError>> {
        self.0.call(context)
    }
}

impl<H: BatchHandler<Args>, Args: 'static> Call for Gatherer<H, Args> {
    fn call<'a>(&'a self, context: &'a Context) -> BoxFuture<'a, Result<Outcome, HandlerError>> {
        self.take_part(context)
    }
}

impl AnyHandler {
    pub(crate) fn new<H: Handler<Args>, Args: 'static>(handler: H) -> Self {
        Self {
            call: Arc::new(Typed(handler, std::marker::PhantomData)),
            requirements: H::requirements().into(),
            answers: H::answers(),
            batching: None,
        }
    }

    /// A handler of batches, at the end of each message's way.
    pub(crate) fn of_batches<H: BatchHandler<Args>, Args: 'static>(
        handler: H,
        policy: BatchPolicy,
    ) -> Self {
        let gatherer = Arc::new(Gatherer::new(handler, policy));
        Self {
            call: Arc::<Gatherer<H, Args>>::clone(&gatherer),
            requirements: H::requirements().into(),
            answers: false,
            batching: Some(gatherer),
        }
    }

    /// What has to be known of it if it takes batches.
    pub(crate) fn batching(&self) -> Option<&Arc<dyn Batching>> {
        self.batching.as_ref()
    }

    pub(crate) async fn call(&self, context: &Context) -> Result<Outcome, HandlerError> {
        if self.answers {
            // What cannot be answered is not handled either.
            context.reply_address()?;
        }
        match self.call.call(context).await {
            // Middleware sees an answer, not a failure: it is final, and kept like any other.
            Err(error) => match (error.reply(), context.reply_address()) {
                (Some(answer), Ok(Some(_))) => Ok(Outcome::Answered(Answer::failure(answer))),
                _ => Err(error),
            },
            outcome => outcome,
        }
    }

    /// Whether it answers requests.
    pub(crate) fn answers(&self) -> bool {
        self.answers
    }

    pub(crate) fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Debug for AnyHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("requirements", &self.requirements).finish_non_exhaustive()
    }
}
