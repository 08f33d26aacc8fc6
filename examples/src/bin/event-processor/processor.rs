//! The work on an event, once among all listeners.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::health::{Status, StatusCell};
use mmate_core::{RetryPolicy, error_chain};
use mmate_idempotency::store::Store;
use mmate_idempotency::{Idempotent, Ran, RunError};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::database::Database;
use crate::event::Event;
use crate::options::WorkOptions;
use crate::tally::{Outcome, Tally};

/// What is done with an event, whichever way it came. Knows nothing of duplicates.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) database: Database,
    pub(crate) listener: Arc<str>,
    pub(crate) takes: Duration,
}

impl Worker {
    /// Works on the event and stores it; `false` if it was stored already.
    pub(crate) async fn work(self, event: Event) -> sqlx::Result<bool> {
        sleep(self.takes).await;
        self.database.insert(&event, &self.listener).await
    }
}

/// Lets the worker have the events that no other listener has.
pub(crate) struct Processor {
    worker: Worker,
    records: Idempotent,
    /// Only what is worked on has a place. Who waits for another listener has none, or the claims of
    /// one that died would bring all others to a halt until its lease is over.
    places: Semaphore,
    pub(crate) tally: Arc<Tally>,
    pub(crate) store: StatusCell,
}

/// How long to wait for a listener that works on the same event, and for what is away.
fn pauses() -> RetryPolicy {
    let (first, longest) = (Duration::from_millis(20), Duration::from_secs(1));
    RetryPolicy::exponential(first, longest).max_attempts(u32::MAX)
}

impl Processor {
    pub(crate) fn new(worker: Worker, store: Arc<dyn Store>, options: &WorkOptions) -> Self {
        let records = Idempotent::new(store)
            .named("event-processor", Arc::clone(&worker.listener))
            .lease(options.lease())
            .wait(Duration::ZERO);
        Self {
            worker,
            records,
            places: Semaphore::new(options.concurrency.into()),
            tally: Arc::default(),
            store: StatusCell::new(Status::Up),
        }
    }

    /// Returns once the event is processed, here or by another listener, and not before: whoever is
    /// at it may die. `None` if this listener has ended before that.
    pub(crate) async fn process(&self, event: Event) -> Option<Outcome> {
        for attempt in 1.. {
            let place = self.places.acquire().await.ok()?;
            let work = self.worker.clone().work(event.clone());
            let ran = self.records.run(event.key(), event.fingerprint(), work).await;
            drop(place);
            self.says(match &ran {
                Err(RunError::Store { source, .. }) => Status::down(error_chain(source)),
                _ => Status::Up,
            });
            if let Some(outcome) = outcome(&ran) {
                self.tally.add(&self.worker.listener, outcome);
                return Some(outcome);
            }
            sleep(pauses().after(attempt).unwrap_or_default()).await;
        }
        unreachable!("the attempts do not end")
    }

    /// Begins nothing new, and waits for what is worked on.
    pub(crate) async fn finish(&self, limit: Duration) {
        self.places.close();
        self.records.finish(limit).await;
    }

    /// Logs only what is new.
    fn says(&self, status: Status) {
        if self.store.status().is_down() != status.is_down() {
            tracing::warn!("the store is {status}");
        }
        self.store.set(status);
    }
}

/// What came of an event, if it is over.
fn outcome(ran: &Result<Ran<bool>, RunError<sqlx::Error>>) -> Option<Outcome> {
    match ran {
        Ok(Ran::Fresh(true)) => Some(Outcome::Stored),
        // A listener that died between the database and the record has stored it.
        Ok(Ran::Fresh(false) | Ran::Replayed(_)) => Some(Outcome::Duplicate),
        Err(error @ RunError::Conflict { .. }) => {
            tracing::error!("{error}; what came first is stored");
            Some(Outcome::Conflict)
        }
        // These show in the health, and are told there.
        Err(RunError::Busy { .. } | RunError::Failed { .. } | RunError::Store { .. }) => None,
        Err(error) => {
            tracing::warn!(reason = error_chain(error), "an event is tried again");
            None
        }
    }
}
