//! Waiting, and times against their limits.

use std::time::{Duration, Instant};

/// Longer than anything takes on a busy machine, shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(90);

/// Whether the long variants shall run: `MMATE_TEST_LONG=1`.
#[must_use]
pub fn is_long_run() -> bool {
    std::env::var_os("MMATE_TEST_LONG").is_some_and(|value| value == "1")
}

/// Waits until something holds.
///
/// # Panics
/// If it does not within a minute and a half.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look).await
}

/// Waits until something holds.
///
/// # Panics
/// If it does not within the limit.
pub async fn within<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        let looking = Instant::now();
        if let Some(found) = look().await {
            return found;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain until {what}");
        // A look that is much work must not take the time of what it waits for.
        tokio::time::sleep((looking.elapsed() * 5).max(LOOK)).await;
    }
}

const LOOK: Duration = Duration::from_millis(10);

/// Prints how much memory a process had at most, in bytes.
///
/// # Panics
/// If it is above the limit.
pub fn memory(fault: &str, what: &str, peak: u64, limit: u64) {
    let [peak_mib, limit_mib] = [peak, limit].map(|bytes| bytes / (1 << 20));
    println!("| {fault} | {what} | {peak_mib} MiB | {limit_mib} MiB |");
    assert!(peak <= limit, "{fault}: {what} took {peak_mib} MiB of {limit_mib}");
}

/// How long something took, of what it may take.
#[derive(Debug, Clone, Copy)]
pub struct Recovery {
    fault: &'static str,
    limit: Duration,
}

impl Recovery {
    /// A fault by its number, and what it may take in seconds.
    #[must_use]
    pub fn of(fault: &'static str, limit_in_seconds: f64) -> Self {
        Self { fault, limit: Duration::from_secs_f64(limit_in_seconds) }
    }

    /// Prints a time with its limit.
    ///
    /// # Panics
    /// If it is above the limit.
    pub fn took(&self, what: &str, time: Duration) {
        let Self { fault, limit } = self;
        let (time, limit_in_seconds) = (time.as_secs_f64(), limit.as_secs_f64());
        println!("| {fault} | {what} | {time:.2} s | {limit_in_seconds} s |");
        assert!(time <= limit_in_seconds, "{fault}: {what} took {time:.2} s of {limit_in_seconds}");
    }

    /// The longest of several times.
    ///
    /// # Panics
    /// If it is above the limit, or there is none.
    pub fn took_at_most(&self, what: &str, times: &[Duration]) {
        let what = format!("{what} (the longest of {})", times.len());
        self.took(&what, *times.iter().max().unwrap());
    }
}
