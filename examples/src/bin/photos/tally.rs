//! What is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{counter, describe_counter};
use tokio::time::sleep;

use crate::desk::Desk;

const UPLOADS: &str = "photos_uploads_total";
const DELIVERED: &str = "photos_delivered_total";

/// Says what the metrics are, once they are collected.
pub(crate) fn describe() {
    describe_counter!(UPLOADS, "Photos that were sent, by their answer (stored, cached, failed).");
    describe_counter!(DELIVERED, "Photos that were shown to their recipient.");
}

/// How a photo that was sent was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Stored,
    Cached,
    Failed,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    stored: AtomicU64,
    cached: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    pub(crate) fn add(&self, outcome: Outcome) {
        let (count, word) = match outcome {
            Outcome::Stored => (&self.stored, "stored"),
            Outcome::Cached => (&self.cached, "cached"),
            Outcome::Failed => (&self.failed, "failed"),
        };
        count.fetch_add(1, Relaxed);
        counter!(UPLOADS, "answer" => word).increment(1);
    }

    pub(crate) fn now(&self) -> Counts {
        Counts {
            stored: self.stored.load(Relaxed),
            cached: self.cached.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}

pub(crate) fn delivered() {
    counter!(DELIVERED).increment(1);
}

/// The counts at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) stored: u64,
    pub(crate) cached: u64,
    pub(crate) failed: u64,
}

impl Counts {
    /// Of a hundred photos that were taken, how many were there already.
    fn duplicate_rate(self) -> f64 {
        let taken = self.stored + self.cached;
        if taken == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a percentage")]
        let rate = 100.0 * self.cached as f64 / taken as f64;
        rate
    }
}

/// Writes the rate to the log every ten seconds, if there is something new.
pub(crate) async fn log(desk: Arc<Desk>) {
    const EVERY: Duration = Duration::from_secs(10);
    let mut last = desk.tally.now();
    loop {
        sleep(EVERY).await;
        let now = desk.tally.now();
        if now != last {
            last = now;
            let Counts { stored, cached, failed } = now;
            let duplicates = format!("{:.1} %", now.duplicate_rate());
            tracing::info!(stored, cached, failed, duplicates, "photos so far");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn the_rate_is_that_of_copies_among_all() {
        let rate = |stored, cached| Counts { stored, cached, failed: 9 }.duplicate_rate();
        assert!(rate(0, 0).abs() < 1e-9);
        assert!((rate(3, 1) - 25.0).abs() < 1e-9);
    }
}
