//! Removing records whose time is over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metrics::Meters;
use crate::store::{Store, StoreError};

/// So many records at once: enough to keep up, too few to keep claims waiting.
const AT_ONCE: u32 = 500;
/// Between purges, at least: claims that wait for the same lock come first.
const REST: Duration = Duration::from_millis(10);
/// And so many times as long as the last one took, so that a database that is slow, or has much to
/// forget, works mostly for others.
const RESTS: u32 = 2;
/// One failure is an outage that other calls tell of; so many in a row, and records pile up.
const IN_A_ROW: u32 = 3;

/// Purges a store from time to time while a service uses it. Every instance does so; what one has
/// removed another does not find.
#[derive(Debug, Default)]
pub(crate) struct Upkeep(Mutex<Users>);

#[derive(Debug, Default)]
struct Users {
    count: usize,
    running: Option<DropGuard>,
}

impl Upkeep {
    /// For one more subscription.
    pub(crate) fn start(&self, store: &Arc<dyn Store>, every: Duration, meters: &Arc<Meters>) {
        let mut users = self.users();
        users.count += 1;
        if users.running.is_none() {
            let stop = CancellationToken::new();
            let purging = purge(Arc::clone(store), every, Arc::clone(meters));
            let stopped = stop.clone();
            tokio::spawn(async move { stopped.run_until_cancelled(purging).await });
            users.running = Some(stop.drop_guard());
        }
    }

    /// For one subscription less.
    pub(crate) fn stop(&self) {
        let mut users = self.users();
        users.count = users.count.saturating_sub(1);
        if users.count == 0 {
            users.running = None;
        }
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn purge(store: Arc<dyn Store>, every: Duration, meters: Arc<Meters>) {
    let mut failures = 0;
    loop {
        // Instances that started together do not purge together.
        sleep(every.mul_f64(0.5 + fastrand::f64())).await;
        loop {
            let began = Instant::now();
            match store.purge(AT_ONCE).await {
                Ok(removed) => {
                    if failures >= IN_A_ROW {
                        tracing::info!(store = store.name(), "old records are purged again");
                    }
                    failures = 0;
                    meters.purged(removed);
                    if removed < u64::from(AT_ONCE) {
                        break;
                    }
                    sleep(REST.max(began.elapsed() * RESTS)).await;
                }
                Err(error) => {
                    meters.purge_failed();
                    failures += 1;
                    tell(failures, &*store, &error);
                    break;
                }
            }
        }
    }
}

/// Once when records begin to pile up, and otherwise to those who want to know everything.
fn tell(failures: u32, store: &dyn Store, error: &StoreError) {
    let (store, error) = (store.name(), mmate_core::error_chain(error));
    if failures == IN_A_ROW {
        tracing::warn!(
            store,
            error,
            failures,
            "old records cannot be purged and pile up; it is tried again each time"
        );
    } else {
        tracing::debug!(store, error, failures, "purging records failed; it is tried again later");
    }
}
