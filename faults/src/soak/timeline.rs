//! When what was done, and how long it took until effects flowed again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::nemesis::Nemesis;

/// The faults of a soak.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    begin: Instant,
    /// Of the parts before.
    before: Duration,
    faults: Arc<Mutex<Vec<Fault>>>,
}

/// One fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Fault {
    /// Seconds since the beginning.
    pub(super) at: f64,
    pub(super) nemesis: Nemesis,
    pub(super) whom: String,
    /// How long the harm lasted, in seconds.
    pub(super) lasted: f64,
    /// How long it then took until effects flowed again, in seconds.
    pub(super) recovered_in: Option<f64>,
}

impl Timeline {
    /// One that goes on after so many seconds and these faults.
    pub(super) fn after(seconds: f64, faults: Vec<Fault>) -> Self {
        let before = Duration::from_secs_f64(seconds);
        Self { begin: Instant::now(), before, faults: Arc::new(Mutex::new(faults)) }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.before + self.begin.elapsed()
    }

    /// Puts a fault down, and returns its number.
    pub(super) fn put(&self, fault: Fault) -> usize {
        let mut faults = self.faults.lock().unwrap();
        faults.push(fault);
        faults.len() - 1
    }

    pub(super) fn recovered(&self, number: usize, within: Duration) {
        self.faults.lock().unwrap()[number].recovered_in = Some(within.as_secs_f64());
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        self.faults.lock().unwrap().clone()
    }
}
