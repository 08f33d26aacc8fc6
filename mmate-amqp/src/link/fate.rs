//! How long to go on trying, and that nobody tries any more.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// What the connections of a service share: when one of them stays away for too long, all are given
/// up, for a service that can only consume or only publish is none.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    sealed: CancellationToken,
    reason: Mutex<Option<Failure>>,
}

impl Fate {
    /// Ready, with the reason, when the service is to be given up.
    pub(super) async fn sealed(&self) -> Failure {
        self.sealed.cancelled().await;
        // Nothing panics while it is held; and there is a reason before it is sealed.
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        reason.unwrap_or(Failure::Lost)
    }

    /// Makes attempts until one of them succeeds, for so long at most. They note why they
    /// failed.
    pub(super) async fn bound<T>(
        &self,
        limit: Option<Duration>,
        attempts: impl AsyncFnOnce(&LastFailure) -> T,
    ) -> Result<T, Failure> {
        let last = LastFailure::default();
        tokio::select! {
            done = attempts(&last) => Ok(done),
            limit = over(limit) => {
                let last = last.0.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(self.seal(Failure::GivenUp { after: limit, last }))
            }
            reason = self.sealed() => Err(reason),
        }
    }

    /// The first reason stays.
    fn seal(&self, reason: Failure) -> Failure {
        let mut held = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let first = held.get_or_insert(reason).clone();
        self.sealed.cancel();
        first
    }
}

/// Why the last attempt failed.
#[derive(Debug, Default)]
pub(super) struct LastFailure(Mutex<Option<String>>);

impl LastFailure {
    pub(super) fn is(&self, failure: &Failure) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.to_string());
    }
}

/// Ready when the time is over, if there is an end to it.
async fn over(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit).await;
            limit
        }
        None => std::future::pending().await,
    }
}
