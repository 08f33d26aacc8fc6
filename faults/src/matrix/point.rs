//! The point where the fault happens.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};

use super::cell::{Boundary, Fault};
use super::role::LEASE;

/// Strikes once, at one boundary.
#[derive(Debug)]
pub(crate) struct Point {
    fault: Option<(Boundary, Fault)>,
    is_armed: AtomicBool,
    reached: AtomicUsize,
}

/// What is to be done by who has reached it. Who is killed does nothing, and who stood still goes on as if nothing
/// had been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    /// An error.
    Error,
    /// No answer.
    Lost,
}

/// It strikes when the boundary is reached for this time, so that something has gone well before.
const AT: usize = 2;

impl Point {
    pub(crate) fn new(fault: Option<(Boundary, Fault)>) -> Self {
        Self { fault, is_armed: AtomicBool::new(false), reached: AtomicUsize::new(0) }
    }

    /// From now on boundaries are counted: the service has started.
    pub(crate) fn arm(&self) {
        self.is_armed.store(true, Ordering::SeqCst);
    }

    /// The boundary is reached by the message of this id.
    pub(crate) fn at(&self, boundary: Boundary, id: &str) -> Option<Strike> {
        let (there, fault) = self.fault?;
        if there != boundary || !self.is_armed.load(Ordering::SeqCst) {
            return None;
        }
        if self.reached.fetch_add(1, Ordering::SeqCst) + 1 != AT {
            return None;
        }
        println!("struck {id}");
        match fault {
            Fault::Abort => die(),
            Fault::Delayed => {
                stand_still();
                None
            }
            Fault::Error => Some(Strike::Error),
            Fault::Lost => Some(Strike::Lost),
        }
    }
}

/// A signal takes effect when some thread of the process takes notice of it. Until then this one goes no further.
const NOTICED: Duration = Duration::from_millis(1);

fn die() -> ! {
    kill_process(getpid(), Signal::KILL).expect("a process may send itself any signal");
    loop {
        std::thread::sleep(NOTICED);
    }
}

fn stand_still() {
    let since = Instant::now();
    kill_process(getpid(), Signal::STOP).expect("a process may send itself any signal");
    while since.elapsed() < LEASE {
        std::thread::sleep(NOTICED);
    }
}
