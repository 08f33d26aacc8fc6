//! One call.

use std::fmt;
use std::future::IntoFuture;
use std::panic::resume_unwind;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use super::Idempotent;
use super::error::RunError;
use super::flight::Known;
use super::job::{Entered, enter};
use super::value::{Codec, Coding, Decoded, Errors, Ran};
use crate::metrics;
use crate::protocol::Digest;
use crate::store::{Permit, RecordKey};

/// A call that is made when it is awaited; see [`Idempotent::run`].
///
/// ```
/// use mmate_idempotency::store::RecordKey;
/// use mmate_idempotency::{Idempotent, MemoryStore, RunError};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let charges = Idempotent::new(MemoryStore::new());
/// let charge = |outcome: Result<u64, &'static str>| {
///     let key = RecordKey::new("charges", "order-7").unwrap();
///     charges
///         .run(key, None, async move { outcome.map_err(str::to_owned) })
///         .keep_errors(|error| error == "card declined")
/// };
/// // A failure that may pass is forgotten, one that is final is kept.
/// assert!(charge(Err("the bank does not answer")).await.is_err());
/// assert!(charge(Err("card declined")).await.is_err());
/// let Err(RunError::Failed { error, replayed }) = charge(Ok(995)).await else { panic!() };
/// assert_eq!((error.as_str(), replayed), ("card declined", true));
/// # Ok(()) }
/// ```
#[must_use = "nothing is done until it is awaited"]
pub struct Run<F, T, E> {
    pub(super) idempotent: Idempotent,
    pub(super) key: RecordKey,
    pub(super) fingerprint: Option<Digest>,
    pub(super) work: F,
    pub(super) codec: Codec<T, E>,
}

impl<F, T, E> Run<F, T, E> {
    /// Keeps errors of the work for which `keeps` says so, as values are kept: later calls get them
    /// as [`RunError::Failed`] with `replayed`, and their work does not run. For errors that are
    /// final. One that is too large is recorded as done, and later calls get
    /// [`RunError::ValueMissing`].
    pub fn keep_errors(mut self, keeps: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self
    where
        E: Serialize + DeserializeOwned,
    {
        self.codec.errors = Some(Errors { keeps: Box::new(keeps), coding: Coding::json() });
        self
    }

    /// Makes the call with the work as a part of the caller, not as a task of its own: so the work
    /// may borrow. If the caller is dropped, the work is dropped with it wherever it stands, the
    /// claim is given back, and the next call runs its work.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn here<W>(self) -> Result<Ran<T>, RunError<E>>
    where
        F: FnOnce(Permit) -> W,
        W: Future<Output = Result<T, E>>,
    {
        let store = self.idempotent.shared.leases.name();
        let ended = match self.enter().await {
            Ok((Entered::Known(known), call)) => call.known(known),
            Ok((Entered::Mine(job), call)) => job.run(call).await,
            Err(error) => Err(error),
        };
        told(store, ended)
    }

    /// Waits for the turn and claims.
    async fn enter(self) -> Result<(Entered, Call<F, T, E>), RunError<E>> {
        let Self { idempotent, key, fingerprint, work, codec } = self;
        match enter(&idempotent, &key, fingerprint).await {
            Ok(entered) => Ok((entered, Call { key, work, codec })),
            Err(refusal) => Err(refusal.of(key)),
        }
    }
}

impl<F, W, T, E> IntoFuture for Run<F, T, E>
where
    F: FnOnce(Permit) -> W + Send + 'static,
    W: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    type Output = Result<Ran<T>, RunError<E>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let leases = self.idempotent.shared.leases.clone();
            let ended = match self.enter().await {
                Ok((Entered::Known(known), call)) => call.known(known),
                Ok((Entered::Mine(job), call)) => {
                    let key = call.key.clone();
                    match leases.spawn(job.run(call).in_current_span()).await {
                        Ok(ended) => ended,
                        // As if it had run here.
                        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                        Err(_) => Err(RunError::Aborted { key }),
                    }
                }
                Err(error) => Err(error),
            };
            told(leases.name(), ended)
        })
    }
}

/// What a call is made of, once it is past the claim.
pub(super) struct Call<F, T, E> {
    pub(super) key: RecordKey,
    pub(super) work: F,
    pub(super) codec: Codec<T, E>,
}

impl<F, T, E> Call<F, T, E> {
    /// The answer where the work was done by another call.
    fn known(self, Known { kept, since }: Known) -> Result<Ran<T>, RunError<E>> {
        let key = self.key;
        let Some(kept) = kept else { return Err(RunError::ValueMissing { key, since }) };
        match self.codec.decode(&kept) {
            Ok(Decoded::Value(value)) => Ok(Ran::Replayed(value)),
            Ok(Decoded::Error(error)) => Err(RunError::Failed { error, replayed: true }),
            Err(source) => Err(RunError::Undecodable { key, source }),
        }
    }
}

/// Counts how a call ended.
fn told<T, E>(
    store: &'static str,
    ended: Result<Ran<T>, RunError<E>>,
) -> Result<Ran<T>, RunError<E>> {
    let word = match &ended {
        Ok(Ran::Fresh(_)) => "fresh",
        Ok(Ran::Replayed(_)) => "replayed",
        Err(RunError::Failed { replayed: false, .. }) => "failed",
        Err(RunError::Failed { replayed: true, .. }) => "replayed",
        Err(RunError::Conflict { .. }) => "conflict",
        Err(RunError::Busy { .. }) => "busy",
        Err(RunError::LeaseLost { .. } | RunError::Aborted { .. }) => "cancelled",
        Err(RunError::Unrecorded { .. }) => "uncertain",
        Err(
            RunError::TooLarge { .. }
            | RunError::NotRepresentable { .. }
            | RunError::ValueMissing { .. }
            | RunError::Undecodable { .. },
        ) => "no-value",
        Err(RunError::Store { .. }) => "store",
    };
    metrics::ran(store, word);
    ended
}

impl<F, T, E> fmt::Debug for Run<F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("key", &self.key)
            .field("fingerprint", &self.fingerprint)
            .field("keeps_errors", &self.codec.errors.is_some())
            .finish_non_exhaustive()
    }
}
