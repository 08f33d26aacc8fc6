//! Counts what was handled, and what that took.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

/// What was used, from the first message to the last.
#[derive(Clone, Copy)]
pub struct Used {
    pub wall: Duration,
    pub cpu: Duration,
}

static EXPECTED: OnceLock<u64> = OnceLock::new();
static HANDLED: AtomicU64 = AtomicU64::new(0);
static BEGIN: OnceLock<(Instant, Duration)> = OnceLock::new();
static USED: OnceLock<Used> = OnceLock::new();
static ENDED: Notify = Notify::const_new();

pub fn expect(messages: u64) {
    EXPECTED.get_or_init(|| messages);
}

/// One more was handled.
pub fn one() {
    let before = HANDLED.fetch_add(1, Ordering::Relaxed);
    if before == 0 {
        BEGIN.get_or_init(|| (Instant::now(), cpu()));
    }
    if Some(&(before + 1)) == EXPECTED.get() {
        let (wall, used) = BEGIN.get_or_init(|| (Instant::now(), cpu()));
        USED.get_or_init(|| Used { wall: wall.elapsed(), cpu: cpu() - *used });
        ENDED.notify_one();
    }
}

pub async fn complete() -> Used {
    loop {
        if let Some(used) = USED.get() {
            return *used;
        }
        ENDED.notified().await;
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::from_secs(time.tv_sec.unsigned_abs())
        + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}
