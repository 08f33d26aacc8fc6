//! The steps of the delay queues.

use std::time::Duration;

/// The longest time that a delay queue holds a message, in milliseconds. Each queue that messages
/// are delayed for has one delay queue per step in use, so the steps are few.
const STEPS: [u64; 14] = [
    100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000,
    21_600_000, 86_400_000,
];

/// One of the steps: the delay queue that a message waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Rung(usize);

impl Rung {
    /// The lowest step that is not shorter than the delay; the last one if none is.
    pub(crate) fn of(delay: Duration) -> Self {
        let last = STEPS.len() - 1;
        let enough = |step: &u64| Duration::from_millis(*step) >= delay;
        Self(STEPS.iter().position(enough).unwrap_or(last))
    }

    pub(crate) fn longest() -> Self {
        Self(STEPS.len() - 1)
    }

    /// How long it holds a message at most.
    pub(crate) fn duration(self) -> Duration {
        Duration::from_millis(STEPS[self.0])
    }

    /// The name of a queue's delay queue.
    pub(crate) fn queue_of(self, queue: &str) -> String {
        format!("{queue}.delay.{}", STEPS[self.0])
    }

    /// The name of an exchange's delay exchange, and of the queue behind it.
    pub(crate) fn exchange_of(self, exchange: &str) -> String {
        self.queue_of(exchange)
    }

    /// The expiration of a message that waits so long there, in milliseconds: at least 1, since one
    /// of 0 goes only to a consumer that is ready.
    pub(crate) fn expiration(self, delay: Duration) -> String {
        let wait = delay.min(self.duration()).max(Duration::from_millis(1));
        wait.as_nanos().div_ceil(1_000_000).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(delay: u64) -> u128 {
        Rung::of(Duration::from_millis(delay)).duration().as_millis()
    }

    #[test]
    fn a_delay_waits_at_the_lowest_step_that_is_long_enough() {
        assert_eq!([millis(0), millis(100), millis(101), millis(999)], [100, 100, 250, 1_000]);
        assert_eq!(Rung::of(Duration::from_micros(100_001)).duration().as_millis(), 250);
    }

    #[test]
    fn a_delay_above_the_last_step_is_cut_to_it() {
        assert_eq!(Rung::of(Duration::MAX), Rung::longest());
        assert_eq!(Rung::longest().queue_of("orders"), "orders.delay.86400000");
    }
}
