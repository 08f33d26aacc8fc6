//! What can be set, with its defaults.

use std::time::Duration;

/// The numbers behind the options of [`Amqp`](crate::Amqp); they are documented there.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) heartbeat: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) answer_timeout: Duration,
    pub(crate) publish_window: u32,
    pub(crate) publish_timeout: Duration,
    pub(crate) settle_timeout: Duration,
    pub(crate) reconnect: Backoff,
    pub(crate) give_up_after: Option<Duration>,
    pub(crate) delivery_limit: u32,
    pub(crate) consumer_timeout: Duration,
    pub(crate) topology_check: Duration,
    pub(crate) max_body_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
            publish_window: 1_000,
            publish_timeout: Duration::from_secs(30),
            settle_timeout: Duration::from_secs(30),
            reconnect: Backoff {
                first: Duration::from_millis(100),
                longest: Duration::from_secs(3),
            },
            give_up_after: None,
            delivery_limit: 20,
            consumer_timeout: Duration::from_secs(1_800),
            topology_check: Duration::from_secs(3),
            max_body_bytes: 16 * 1024 * 1024,
        }
    }
}

impl Settings {
    /// What cannot work, as a sentence.
    pub(crate) fn check(&self) -> Result<(), String> {
        let second = Duration::from_secs(1);
        if self.heartbeat < second || self.heartbeat > second * u32::from(u16::MAX) {
            return Err("the heartbeat is between 1 s and 65,535 s".to_owned());
        }
        if self.publish_window == 0 {
            return Err("the publish window is 1 at least".to_owned());
        }
        if self.delivery_limit == 0 {
            return Err("the delivery limit is 1 at least".to_owned());
        }
        if self.max_body_bytes == 0 {
            return Err("the largest body has 1 byte at least".to_owned());
        }
        let times = [
            ("time to give up after", self.give_up_after.unwrap_or(second)),
            ("connect timeout", self.connect_timeout),
            ("answer timeout", self.answer_timeout),
            ("publish timeout", self.publish_timeout),
            ("settle timeout", self.settle_timeout),
            ("consumer timeout", self.consumer_timeout),
            ("first reconnect delay", self.reconnect.first),
            ("interval of the topology check", self.topology_check),
        ];
        match times.into_iter().find(|(_, time)| time.is_zero()) {
            Some((name, _)) => Err(format!("the {name} must not be zero")),
            None => Ok(()),
        }
    }
}

/// How long to wait before each further attempt: doubling from the first to the longest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row, counted from 1. Jitter takes up to a half of
    /// it, so that the clients of a broker that restarts do not all come back at once.
    pub(crate) fn delay(self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.min(self.longest).mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_doubles_to_its_longest_and_jitters_downwards_by_half_at_most() {
        let second = Duration::from_secs(1);
        let backoff = Backoff { first: second, longest: second * 5 };
        for (failures, full) in [(1, 1), (2, 2), (3, 4), (4, 5), (40, 5), (u32::MAX, 5)] {
            let delay = backoff.delay(failures);
            assert!(delay <= second * full && delay >= second * full / 2, "{failures}: {delay:?}");
        }
    }

    #[test]
    fn the_defaults_can_work_and_a_zero_is_told_by_name() {
        assert_eq!(Settings::default().check(), Ok(()));
        let broken = Settings { settle_timeout: Duration::ZERO, ..Settings::default() };
        assert_eq!(broken.check(), Err("the settle timeout must not be zero".to_owned()));
    }
}
