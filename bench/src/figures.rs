//! What is measured of a run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A figure's name; it says the unit.
pub(crate) type Figure = &'static str;

pub(crate) const RATE: Figure = "messages/s";
pub(crate) const CPU: Figure = "µs of CPU/message";
/// How long all cores took for the same as ever, before and after a run.
pub(crate) const YARDSTICK: Figure = "ms, yardstick";
pub(crate) const ALLOCATIONS: Figure = "allocations/message";

/// How often a thread had nothing to do and went to sleep.
pub(crate) const SLEEPS: Figure = "sleeps/message";

/// What one run gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(pub(crate) BTreeMap<Figure, f64>);

impl Sample {
    pub(crate) fn with(mut self, figure: Figure, value: f64) -> Self {
        self.0.insert(figure, value);
        self
    }
}

/// What this process has used up to a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    at: Instant,
    cpu: Duration,
    allocations: usize,
    sleeps: Option<u64>,
}

impl Used {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = time.tv_sec.unsigned_abs();
        let cpu = Duration::from_secs(seconds) + Duration::from_nanos(time.tv_nsec.unsigned_abs());
        let allocations = crate::ALLOCATOR.stats().allocations;
        Self { at: Instant::now(), cpu, allocations, sleeps: sleeps() }
    }

    /// What was used since, by so many messages.
    #[expect(clippy::cast_precision_loss, reason = "numbers of messages")]
    pub(crate) fn since(self, begin: Self, messages: u64) -> Sample {
        let each = |total: f64| total / messages as f64;
        let sample = match (begin.sleeps, self.sleeps) {
            (Some(before), Some(after)) => {
                Sample::default().with(SLEEPS, each(after.saturating_sub(before) as f64))
            }
            _ => Sample::default(),
        };
        let sample = sample
            .with(RATE, messages as f64 / (self.at - begin.at).as_secs_f64())
            .with(CPU, each((self.cpu - begin.cpu).as_secs_f64() * 1e6));
        match self.allocations - begin.allocations {
            // They are not counted.
            0 => sample,
            allocations => sample.with(ALLOCATIONS, each(allocations as f64)),
        }
    }
}

/// Of all threads up to now, where the system tells: on Linux.
fn sleeps() -> Option<u64> {
    let of = |task: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let mut lines = status.lines();
        let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        count.trim().parse::<u64>().ok()
    };
    Some(std::fs::read_dir("/proc/self/task").ok()?.filter_map(of).sum())
}
