//! What the processes of a test share, and work that counts its runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_idempotency::store::{ManualClock, RecordKey};
use mmate_idempotency::{Idempotent, Store};

pub(crate) use crate::gate::Gate;
pub(crate) use crate::place::on_every_store;
use crate::place::{Kind, Place};

/// What the processes of one test share.
pub(crate) struct House {
    place: Place,
    pub(crate) runs: Runs,
}

impl House {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { place: Place::new(kind), runs: Runs::default() }
    }

    /// From now on stores go by this clock, which stands at the present.
    pub(crate) fn clock(&mut self) -> ManualClock {
        self.place.clock()
    }

    /// The store of a process: another handle on the same records.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        self.place.store().await
    }

    /// What a process has.
    pub(crate) async fn instance(&self) -> Idempotent {
        Idempotent::new(self.store().await)
    }
}

/// How often the work ran.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs(Arc<AtomicUsize>);

impl Runs {
    /// One more; the work's value is its number.
    pub(crate) fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) fn key(id: &str) -> RecordKey {
    RecordKey::new("scope", id).unwrap()
}

/// The error of a work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

pub(crate) fn failure(text: &str) -> Failure {
    Failure(text.to_owned())
}

/// A lease that is not over within a test, but by a clock that is moved.
pub(crate) const LEASE: Duration = Duration::from_secs(60);
