//! Work under a claim, from the turn to the record.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::call::Call;
use super::error::{Refusal, RunError};
use super::flight::{End, Known, Turn, Waited};
use super::value::{Errors, Ran};
use super::{Idempotent, Settings};
use crate::protocol::{Claim, Digest, Held};
use crate::store::{ClaimRequest, Permit, RecordKey, StoreError};
use crate::strategy::answers;
use crate::strategy::lease::{Lease, Leases};
use crate::strategy::outage::Patience;

/// How a call may go on.
pub(super) enum Entered {
    Known(Known),
    Mine(Box<Job>),
}

/// A claim to work under, and the turn among the calls of this process.
pub(super) struct Job {
    lease: Lease,
    turn: Turn,
    leases: Arc<Leases>,
    limit: usize,
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Waits for the turn among the calls of this process, and for the claim.
pub(super) async fn enter(
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
                let job = Job::new(idempotent, turn, permit, asked);
                return Ok(Entered::Mine(Box::new(job)));
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

    pub(super) async fn run<F, W, T, E>(self, call: Call<F, T, E>) -> Result<Ran<T>, RunError<E>>
    where
        F: FnOnce(Permit) -> W,
        W: Future<Output = Result<T, E>>,
    {
        let Call { key, work, codec } = call;
        let permit = self.lease.permit().clone();
        let held = self.lease.while_held(async move { work(permit).await }).await;
        let Some(ended) = held else {
            tracing::warn!(?key, "work was cancelled, since its lease was lost");
            self.lease.forget();
            return Err(RunError::LeaseLost { key });
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

fn unrecorded<E>(key: &RecordKey, value: &Bytes, source: Option<StoreError>) -> RunError<E> {
    RunError::Unrecorded { key: key.clone(), value: value.clone(), source }
}
