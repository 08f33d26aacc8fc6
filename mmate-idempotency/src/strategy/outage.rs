//! A store that does not answer: what is tried, how long, and what is told.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use mmate_core::health::Status;
use mmate_core::{Surroundings, error_chain};
use tokio::time::{Instant, sleep, timeout};

use crate::metrics::Meters;
use crate::store::{StoreError, StoreErrorKind};

/// How long is waited for a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For one answer.
    pub(crate) answer: Duration,
    /// For the store to come back, with the delivery in hand.
    pub(crate) outage: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: Duration::from_secs(10), outage: Duration::from_secs(60) }
    }
}

/// What a strategy tells of its store, at most once a second.
#[derive(Debug, Default)]
pub(crate) struct Teller(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// When it was last told in the log.
    at: Option<Instant>,
    failure: Option<(Instant, String)>,
}

/// A failure is that recent for longer than the pause between two attempts.
const RECENT: Duration = Duration::from_secs(15);

impl Teller {
    pub(crate) fn tell(&self, store: &'static str, error: &StoreError) {
        let now = Instant::now();
        let mut told = self.told();
        told.failure = Some((now, error_chain(error)));
        if told.at.is_some_and(|at| now.duration_since(at) < Duration::from_secs(1)) {
            return;
        }
        told.at = Some(now);
        drop(told);
        tracing::warn!(
            store,
            error = error_chain(error),
            "a store does not do what it is asked; the messages are held back until it does"
        );
    }
}

impl Teller {
    /// How the store is: degraded for a while after each failure.
    pub(crate) fn status(&self, store: &'static str, consequence: &str) -> Status {
        match &self.told().failure {
            Some((at, error)) if at.elapsed() < RECENT => {
                Status::degraded(format!("the store {store} fails, and {consequence}: {error}"))
            }
            _ => Status::Up,
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a delivery may not be held for as long as patience lasts, if it may not.
pub(crate) fn check(patience: Patience, surroundings: &Surroundings) -> Result<(), String> {
    let outage = patience.outage;
    let what = format!("a message is held up to {outage:?} while its store does not answer");
    surroundings.may_hold(&what, outage)
}

/// One call, bounded in time.
pub(crate) async fn ask<T>(
    patience: Patience,
    attempted: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut call = pin!(call);
    // A store in memory answers at once, and needs no timer.
    if let Poll::Ready(answer) = poll!(call.as_mut()) {
        return answer;
    }
    timeout(patience.answer, call).await.unwrap_or_else(|_| {
        let text = format!("no answer within {:?}", patience.answer);
        Err(StoreError::new(StoreErrorKind::Unknown, attempted, text))
    })
}

/// Repeats a call until it gives an answer, or patience, which counts from the first failure, is at
/// its end; then the last error comes back.
pub(crate) async fn insist<T, F>(
    patience: Patience,
    attempted: &'static str,
    mut told: impl FnMut(&StoreError),
    mut call: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut until = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match ask(patience, attempted, call()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        told(&error);
        let jittered = pause.mul_f64(1.0 - 0.5 * fastrand::f64());
        let now = Instant::now();
        if now + jittered >= *until.get_or_insert(now + patience.outage) {
            return Err(error);
        }
        sleep(jittered).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Counts and tells.
pub(crate) fn note(meters: &Meters, teller: &Teller, store: &'static str, error: &StoreError) {
    meters.store_failure.increment(1);
    teller.tell(store, error);
}
