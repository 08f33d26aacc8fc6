//! Whether a message is handled in place or in a task of its own.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A handler that waits for nothing is done sooner in place: a task costs an allocation and a turn
/// of the scheduler. One that waits, or computes for long, would hold up the messages behind it.
///
/// So each handling is begun in place, and one that is not done at once goes on as a task. Those
/// that come after it become tasks before they begin, until it is time to look again.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many more become tasks.
    tasks: u32,
}

/// What holds up others for so long is better off in a task.
const LONG: Duration = Duration::from_micros(100);
/// After one that took long, so many become tasks without a look. A handler that always waits then
/// pays for the look with one message of 64.
const WITHOUT_A_LOOK: u32 = 64;

impl Pace {
    /// Begins it, and returns it if it has to go on as a task.
    pub(super) fn begin<F>(&mut self, mut handling: Pin<Box<F>>) -> Option<Pin<Box<F>>>
    where
        F: Future<Output = ()>,
    {
        if let Some(left) = self.tasks.checked_sub(1) {
            self.tasks = left;
            return Some(handling);
        }
        let begin = Instant::now();
        // Its task polls it again, and is the one to be woken.
        let polled = handling.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if polled.is_pending() || begin.elapsed() > LONG {
            self.tasks = WITHOUT_A_LOOK;
        }
        match polled {
            Poll::Ready(()) => None,
            Poll::Pending => Some(handling),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn what_is_done_at_once_needs_no_task() {
        let mut pace = Pace::default();
        assert!((0..1000).all(|_| pace.begin(Box::pin(ready(()))).is_none()));
    }

    #[test]
    fn what_waits_goes_on_as_a_task_and_so_do_the_next_ones() {
        let mut pace = Pace::default();
        assert!(pace.begin(Box::pin(pending())).is_some());
        let tasks = (0..1000).take_while(|_| pace.begin(Box::pin(ready(()))).is_some()).count();
        assert_eq!(tasks, 64);
    }

    #[test]
    fn after_one_that_computes_for_long_the_next_ones_become_tasks() {
        let mut pace = Pace::default();
        let long = || async { std::thread::sleep(2 * LONG) };
        assert!(pace.begin(Box::pin(long())).is_none());
        assert!(pace.begin(Box::pin(long())).is_some());
    }
}
