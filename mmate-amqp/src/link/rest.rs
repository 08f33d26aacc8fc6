//! The moment between the last acknowledgements and the end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many frames have settled deliveries of late.
///
/// A quorum queue takes them one after the other. What it has not taken when a channel is closed, it forgets, and the
/// messages come back: with more than 32 frames under way (`quorum_commands_soft_limit`) the broker's channel keeps the
/// rest to itself until some are taken, and drops it when it ends (`rabbitmq/rabbitmq-server#10327`; seen on 3.10 with some
/// hundred frames within a few milliseconds before the end). Nothing that a client can ask tells when they are taken.
#[derive(Debug)]
pub(super) struct Rest(Mutex<Burst>);

#[derive(Debug)]
struct Burst {
    frames: usize,
    last: Instant,
}

/// With fewer, all are on their way to the queue.
const FEW: usize = 16;
/// The queue has taken them all by then: it takes tens of thousands a second, and writes them to its disk together.
const MOMENT: Duration = Duration::from_millis(200);

impl Rest {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Burst { frames: 0, last: Instant::now() }))
    }

    /// So many frames were written.
    pub(super) fn written(&self, frames: usize) {
        if frames == 0 {
            return;
        }
        let now = Instant::now();
        let mut burst = self.burst();
        if now > burst.last + MOMENT {
            burst.frames = 0;
        }
        burst.frames = burst.frames.saturating_add(frames);
        burst.last = now;
    }

    /// Waits until the broker has had the time to take what was written.
    pub(super) async fn over(&self) {
        let until = {
            let burst = self.burst();
            (burst.frames > FEW).then_some(burst.last + MOMENT)
        };
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    fn burst(&self) -> MutexGuard<'_, Burst> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits(rest: &Rest) -> Duration {
        let begin = Instant::now();
        rest.over().await;
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn after_many_frames_there_is_a_moment_of_rest() {
        let rest = Rest::new();
        rest.written(FEW);
        assert_eq!(waits(&rest).await, Duration::ZERO);
        rest.written(1);
        assert!(waits(&rest).await >= MOMENT);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_of_long_ago_do_not_count() {
        let rest = Rest::new();
        rest.written(1000);
        tokio::time::sleep(MOMENT * 2).await;
        assert_eq!(waits(&rest).await, Duration::ZERO);
        rest.written(1);
        assert_eq!(waits(&rest).await, Duration::ZERO);
    }
}
