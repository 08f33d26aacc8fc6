//! When a failed message is tried again.

use std::time::Duration;

/// When a failed message is tried again, and how often: exponential delays with jitter, capped,
/// then the dead-letter queue.
///
/// ```
/// use std::time::Duration;
/// use mmate_core::RetryPolicy;
/// // 1 s, 2 s, 4 s, … up to a minute, each up to half shorter at random; five attempts in all.
/// let policy = RetryPolicy::exponential(Duration::from_secs(1), Duration::from_secs(60))
///     .max_attempts(5)
///     .jitter(0.5);
/// # let _ = policy;
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    first: Duration,
    longest: Duration,
    max_attempts: u32,
    jitter: f64,
}

impl Default for RetryPolicy {
    /// 1 s doubling up to 5 min, each up to half shorter at random, 10 attempts: a message is given
    /// up after about 10 to 20 minutes.
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), Duration::from_secs(300))
    }
}

impl RetryPolicy {
    /// Delays that double from `first` up to `longest`; 10 attempts; jitter of one half.
    #[must_use]
    pub fn exponential(first: Duration, longest: Duration) -> Self {
        Self { first, longest: longest.max(first), max_attempts: 10, jitter: 0.5 }
    }

    /// The same delay each time; 10 attempts; no jitter.
    #[must_use]
    pub fn fixed(delay: Duration) -> Self {
        Self { jitter: 0.0, ..Self::exponential(delay, delay) }
    }

    /// No second attempt.
    #[must_use]
    pub fn never() -> Self {
        Self::default().max_attempts(1)
    }

    /// How many attempts are made in all, the first included; at least 1.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// By what share of itself a delay may be shorter, at random: 0 is none, 1 is anything down to
    /// nothing. It keeps messages that failed together from coming back together.
    #[must_use]
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        self
    }

    /// The longest delay that it may ask for.
    pub(crate) fn longest(&self) -> Duration {
        if self.max_attempts == 1 { Duration::ZERO } else { self.longest }
    }

    /// How long all delays are together, each at its longest.
    pub(crate) fn schedule(&self) -> Duration {
        let mut left = self.max_attempts - 1;
        let mut total = Duration::ZERO;
        for attempt in 1.. {
            let delay = self.delay(attempt, 0.0);
            if left == 0 || attempt > 32 || delay == self.longest {
                // From here on they are all the same.
                return total.saturating_add(delay.saturating_mul(left));
            }
            total = total.saturating_add(delay);
            left -= 1;
        }
        total
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.max_attempts
    }

    /// The delay after the `attempt`-th attempt failed, or `None` if it was the last.
    #[must_use]
    pub fn after(&self, attempt: u32) -> Option<Duration> {
        (attempt < self.max_attempts).then(|| self.delay(attempt, fastrand::f64()))
    }

    fn delay(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let delay = self.first.saturating_mul(1 << doublings).min(self.longest);
        delay.mul_f64(1.0 - self.jitter * random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_end_with_the_last_attempt() {
        let policy = RetryPolicy::exponential(Duration::from_secs(1), Duration::from_secs(5))
            .jitter(0.0)
            .max_attempts(5);
        let delays: Vec<_> = (1..=5).map(|n| policy.after(n).map(|d| d.as_secs())).collect();
        assert_eq!(delays, [Some(1), Some(2), Some(4), Some(5), None]);
    }

    #[test]
    fn jitter_shortens_by_its_share_at_most() {
        let policy = RetryPolicy::fixed(Duration::from_secs(10)).jitter(0.5);
        assert_eq!(policy.delay(1, 0.0), Duration::from_secs(10));
        assert_eq!(policy.delay(1, 1.0), Duration::from_secs(5));
    }

    /// S38
    #[test]
    fn the_schedule_is_the_sum_of_the_longest_delays() {
        let policy = RetryPolicy::exponential(Duration::from_secs(1), Duration::from_secs(5));
        let schedule = |attempts| policy.max_attempts(attempts).schedule().as_secs();
        assert_eq!([1, 2, 3, 4, 5, 6].map(schedule), [0, 1, 3, 7, 12, 17]);
        assert_eq!(schedule(u32::MAX), 7 + 5 * (u64::from(u32::MAX) - 4));
        let fixed = RetryPolicy::fixed(Duration::from_secs(10)).max_attempts(4);
        assert_eq!(fixed.schedule(), Duration::from_secs(30));
    }

    #[test]
    fn a_huge_attempt_number_does_not_overflow() {
        let policy = RetryPolicy::default().max_attempts(u32::MAX);
        assert!(policy.after(u32::MAX - 1).is_some());
    }
}
