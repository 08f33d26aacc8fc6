//! One call.

use std::fmt;
use std::future::IntoFuture;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use super::error::{Refusal, RunError};
use super::flight::{End, Known, Turn, Waited};
use super::value::{Codec, Coding, Decoded, Errors, Ran};
use super::{Idempotent, Settings};
use crate::metrics;
use crate::protocol::{Claim, Digest, Held};
use crate::store::{ClaimRequest, Permit, RecordKey, StoreError};
use crate::strategy::answers;
use crate::strategy::lease::{Lease, Leases};
use crate::strategy::outage::Patience;

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

    /// Waits for the turn and leases.
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
struct Call<F, T, E> {
    key: RecordKey,
    work: F,
    codec: Codec<T, E>,
}

/// How a call may go on.
enum Entered {
    Known(Known),
    Mine(Job),
}

/// A claim to work under, and the turn among the calls of this process.
struct Job {
    lease: Lease,
    turn: Turn,
    leases: Arc<Leases>,
    limit: usize,
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

async fn enter(
    idempotent: &Idempotent,
    key: &RecordKey,
    fingerprint: Option<Digest>,
) -> Result<Entered, Refusal> {
    let Idempotent { settings, shared } = idempotent;
    let began = Instant::now();
    let until = began + settings.wait;
    let seat = shared.flights.join(key.clone(), fingerprint);
    let turn = match seat.wait(until).await {
        Waited::Mine(turn) => turn,
        Waited::Ended(end) => return end.map(Entered::Known),
        Waited::TooLong => {
            let (waited, lease_left) = (began.elapsed(), settings.lease);
            return Err(Refusal::Busy { waited, lease_left });
        }
    };
    let failed = |turn: Turn, error: StoreError| {
        turn.end(End::Store { kind: error.kind(), cause: error.cause() });
        Err(Refusal::Store(error))
    };
    if let Err(error) = idempotent.prepare().await {
        return failed(turn, error);
    }
    let mut request = ClaimRequest::new(key.clone(), settings.claimant(), settings.lease);
    request.fingerprint = fingerprint;
    let mut pause = FIRST_PAUSE;
    loop {
        let (answer, asked) = shared.leases.ask(&request, settings.patience).await;
        let lease_left = match answer {
            Ok(Claim::Granted(grant)) => {
                let permit = Permit::new(&request, grant);
                return Ok(Entered::Mine(Job::new(idempotent, turn, permit, asked)));
            }
            Ok(Claim::Duplicate(seen)) => {
                let since = Some(SystemTime::from(seen.since));
                let known = Known { kept: seen.reply, since };
                turn.end(End::Known(known.clone()));
                return Ok(Entered::Known(known));
            }
            Ok(Claim::Conflict) => {
                turn.end(End::Conflict);
                return Err(Refusal::Conflict);
            }
            Ok(Claim::Busy { remaining }) => remaining,
            Err(error) => return failed(turn, error),
        };
        let now = Instant::now();
        if now >= until {
            return Err(Refusal::Busy { waited: now - began, lease_left });
        }
        // Not long past the end of the lease, and once more at the end of patience.
        let jittered = pause.mul_f64(1.0 - 0.5 * fastrand::f64());
        sleep(jittered.min(lease_left.max(FIRST_PAUSE)).min(until - now)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Job {
    fn new(idempotent: &Idempotent, turn: Turn, permit: Permit, asked: Instant) -> Self {
        let Settings { lease, patience, value_limit, .. } = idempotent.settings;
        let leases = &idempotent.shared.leases;
        // Nobody takes over before the lease ends: for so long it may be tried to record the value.
        let patience = Patience { outage: patience.outage.max(lease), ..patience };
        let lease = Lease::new(leases, permit, lease, asked, patience);
        Self { lease, turn, leases: leases.clone(), limit: value_limit }
    }

    async fn run<F, W, T, E>(self, call: Call<F, T, E>) -> Result<Ran<T>, RunError<E>>
    where
        F: FnOnce(Permit) -> W,
        W: Future<Output = Result<T, E>>,
    {
        let Call { key, work, codec } = call;
        let permit = self.lease.permit().clone();
        let ended = match self.lease.while_held(async move { work(permit).await }).await {
            Some(ended) => ended,
            None => {
                tracing::warn!(?key, "work was cancelled, since its lease was lost");
                self.lease.forget();
                return Err(RunError::LeaseLost { key });
            }
        };
        match ended {
            Ok(value) => match (codec.value.encode)(&value) {
                Ok(bytes) if bytes.len() > self.limit => {
                    let limit = self.limit;
                    let recorded = self.record(&key, Kept::TooLarge(bytes.len())).await;
                    recorded.map_err(|source| unrecorded(&key, &bytes, source))?;
                    Err(RunError::TooLarge { key, bytes: bytes.len(), limit, value: bytes })
                }
                Ok(bytes) => {
                    let kept = Kept::Reply(answers::written(true, &bytes));
                    let recorded = self.record(&key, kept).await;
                    recorded.map_err(|source| unrecorded(&key, &bytes, source))?;
                    Ok(Ran::Fresh(value))
                }
                Err(source) => {
                    let recorded = self.record(&key, Kept::Nothing).await;
                    recorded.map_err(|source| unrecorded(&key, &Bytes::new(), source))?;
                    Err(RunError::NotRepresentable { key, source })
                }
            },
            Err(error) => {
                let kept = self.kept_of(&error, codec.errors.as_ref());
                self.fail(&key, kept).await;
                Err(RunError::Failed { error, replayed: false })
            }
        }
    }

    /// What is to be kept of an error, and its size if that is too large; nothing where it is not to
    /// be kept.
    fn kept_of<E>(&self, error: &E, errors: Option<&Errors<E>>) -> Option<Kept> {
        let errors = errors.filter(|errors| (errors.keeps)(error))?;
        Some(match (errors.coding.encode)(error) {
            Ok(bytes) if bytes.len() > self.limit => Kept::TooLarge(bytes.len()),
            Ok(bytes) => Kept::Reply(answers::written(false, &bytes)),
            Err(error) => {
                tracing::warn!(key = ?self.lease.permit().key(), %error, "an error cannot be kept");
                Kept::Nothing
            }
        })
    }

    /// Gives the claim back, or records an error that is to be kept.
    async fn fail(self, key: &RecordKey, kept: Option<Kept>) {
        match kept {
            None => {
                self.lease.release().await;
                // Only now, so that the next one need not wait.
                drop(self.turn);
            }
            // What there is to tell is told there, and the caller has its error.
            Some(kept) => drop(self.record(key, kept).await),
        }
    }

    /// Records that the work is done, and tells all that wait.
    async fn record(self, key: &RecordKey, kept: Kept) -> Result<(), Option<StoreError>> {
        let Self { lease, turn, leases, limit } = self;
        let kept = match kept {
            Kept::Reply(reply) => Some(reply),
            Kept::Nothing => None,
            Kept::TooLarge(bytes) => {
                leases.meters().reply_not_kept.increment(1);
                tracing::warn!(?key, bytes, limit, "a value is too large to be kept");
                None
            }
        };
        let source = match lease.complete(kept.clone()).await {
            Ok(Held::Yes) => {
                turn.end(End::Known(Known { kept, since: None }));
                return Ok(());
            }
            Ok(Held::Refused) => {
                leases.meters().lease_lost.increment(1);
                None
            }
            Err(error) => Some(error),
        };
        leases.meters().uncertain.increment(1);
        tracing::error!(
            ?key,
            error = source.as_ref().map(|error| mmate_core::error_chain(error)),
            "work was done, but that could not be recorded; it runs again when it is asked for again"
        );
        Err(source)
    }
}

/// What a record is to keep.
enum Kept {
    Reply(Bytes),
    Nothing,
    TooLarge(usize),
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

fn unrecorded<E>(key: &RecordKey, value: &Bytes, source: Option<StoreError>) -> RunError<E> {
    RunError::Unrecorded { key: key.clone(), value: value.clone(), source }
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
