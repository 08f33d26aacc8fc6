//! A message at hand.

use std::sync::Arc;

use tokio::sync::futures::OwnedNotified;

use super::desk::{Desk, Line, Turn};
use super::meters;

/// A message at hand, until it is dropped.
pub(super) struct Seat {
    desk: Arc<Desk>,
    key: String,
    number: u64,
    is_held: bool,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    /// In its handler; `in_turn` if the others wait for it.
    Running {
        in_turn: bool,
    },
}

impl Seat {
    pub(super) fn take(desk: &Arc<Desk>, key: &str, number: u64) -> Self {
        desk.line(key, |line| {
            line.seats += 1;
            *line.waiting.entry(number).or_default() += 1;
        });
        let (desk, key) = (Arc::clone(desk), key.to_owned());
        Self { desk, key, number, is_held: false, phase: Phase::Waiting }
    }

    /// Ready at the next change in its line. What changes from now on is not missed.
    pub(super) fn change(&self) -> OwnedNotified {
        self.desk.line(&self.key, |line| Arc::clone(&line.changed)).notified_owned()
    }

    /// Whether it is its turn; then it is at work. With `jumps` it does not wait for those that are
    /// missing before it.
    pub(super) fn ask(&mut self, jumps: bool) -> Turn {
        let number = self.number;
        let turn = self.desk.line(&self.key, |line| {
            if jumps && line.is_first(number) {
                tell_gap(&self.key, line.next, number);
                line.next = line.next.max(number);
            }
            let turn = line.turn(number);
            if turn != Turn::Early {
                line.leave(number);
                line.running += usize::from(turn == Turn::Now);
            }
            turn
        });
        if turn != Turn::Early {
            self.phase = Phase::Running { in_turn: turn == Turn::Now };
            self.let_go();
        }
        turn
    }

    /// Holds it here, if there is room for one more.
    pub(super) fn hold(&mut self, most: usize) -> bool {
        if !self.is_held {
            self.is_held = self.desk.hold(most);
        }
        self.is_held
    }

    /// Whether none at hand comes before it.
    pub(super) fn is_first(&self) -> bool {
        self.desk.line(&self.key, |line| line.is_first(self.number))
    }

    /// The number that it waits for.
    pub(super) fn awaited(&self) -> u64 {
        self.desk.line(&self.key, |line| line.next)
    }

    /// It needs no handling any more: the next one comes.
    pub(super) fn done(&mut self) {
        let number = self.number;
        self.desk.line(&self.key, |line| line.next = line.next.max(number.saturating_add(1)));
    }

    fn let_go(&mut self) {
        if std::mem::take(&mut self.is_held) {
            self.desk.let_go();
        }
    }
}

impl Line {
    fn turn(&self, number: u64) -> Turn {
        match number.cmp(&self.next) {
            std::cmp::Ordering::Less => Turn::Past,
            std::cmp::Ordering::Equal => Turn::Now,
            std::cmp::Ordering::Greater => Turn::Early,
        }
    }

    fn is_first(&self, number: u64) -> bool {
        self.running == 0
            && self.waiting.first_key_value().is_none_or(|(first, _)| *first >= number)
    }

    fn leave(&mut self, number: u64) {
        if let Some(copies) = self.waiting.get_mut(&number) {
            *copies -= 1;
            if *copies == 0 {
                self.waiting.remove(&number);
            }
        }
    }
}

fn tell_gap(key: &str, missing: u64, number: u64) {
    if number > missing {
        meters::gap();
        tracing::warn!(
            key,
            missing,
            number,
            "a message did not wait any longer for those that are missing before it"
        );
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.let_go();
        let (number, phase) = (self.number, self.phase);
        self.desk.line(&self.key, |line| {
            line.seats -= 1;
            match phase {
                Phase::Waiting => line.leave(number),
                Phase::Running { in_turn } => line.running -= usize::from(in_turn),
            }
            line.changed.notify_waiters();
        });
    }
}
