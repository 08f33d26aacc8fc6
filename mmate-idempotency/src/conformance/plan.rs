//! Plans of what to ask a store.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::harness::WINDOW;
use super::stage::LEASE;

pub(super) const KEYS: [&str; 4] = ["a", "b", "A", "a "];

/// What is done with a store, one act after the other. It says nothing of what the store answers,
/// so parts of it can be left out.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) acts: Vec<Act>,
}

#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Asked at the same time, by different owners.
    AtOnce(Vec<Ask>),
    /// The store's clock moves on.
    Wait(Duration),
    Purge,
}

#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// Which of the [`KEYS`].
    pub(super) key: usize,
    pub(super) what: What,
}

/// Where something is asked by a permit, `back` says by which one of that key: the latest, the one
/// before, and so on.
#[derive(Debug, Clone)]
pub(super) enum What {
    Claim {
        content: Option<u8>,
        /// By the owner of the latest claim.
        again: bool,
    },
    Heartbeat {
        back: usize,
    },
    Complete {
        back: usize,
        reply: Option<Bytes>,
    },
    Release {
        back: usize,
    },
}

impl Plan {
    pub(super) fn random(seed: u64, acts: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self { acts: (0..acts).map(|_| Act::random(&mut random)).collect() }
    }

    /// Up to an act, and with it.
    pub(super) fn until(mut self, act: usize) -> Self {
        self.acts.truncate(act + 1);
        self
    }

    /// How many things there are that can be left out.
    pub(super) fn parts(&self) -> usize {
        self.acts.iter().map(Act::parts).sum()
    }

    /// Leaves one of them out.
    pub(super) fn without(&self, part: usize) -> Self {
        let mut acts = self.acts.clone();
        let mut left = part;
        for number in 0..acts.len() {
            let parts = acts[number].parts();
            if left < parts {
                match &mut acts[number] {
                    Act::AtOnce(asks) if parts > 1 => drop(asks.remove(left)),
                    _ => drop(acts.remove(number)),
                }
                break;
            }
            left -= parts;
        }
        Self { acts }
    }
}

impl Act {
    fn random(random: &mut fastrand::Rng) -> Self {
        match random.u8(..16) {
            0 => Self::Purge,
            1..4 => Self::Wait(wait(random)),
            4..7 => Self::AtOnce((0..random.usize(2..4)).map(|_| Ask::random(random)).collect()),
            _ => Self::AtOnce(vec![Ask::random(random)]),
        }
    }

    fn parts(&self) -> usize {
        match self {
            Self::AtOnce(asks) => asks.len(),
            Self::Wait(_) | Self::Purge => 1,
        }
    }
}

/// Often to the moment at which something ends, or to the one before.
fn wait(random: &mut fastrand::Rng) -> Duration {
    let milli = Duration::from_millis(1);
    match random.u8(..8) {
        0 => LEASE,
        1 => LEASE - milli,
        2 => WINDOW,
        3 => WINDOW - milli,
        4 => milli,
        _ => Duration::from_millis(random.u64(1..2 * LEASE.as_millis() as u64)),
    }
}

impl Ask {
    fn random(random: &mut fastrand::Rng) -> Self {
        // Mostly two keys, so that something comes of it.
        let key = if random.u8(..4) == 0 { random.usize(..KEYS.len()) } else { random.usize(..2) };
        // Mostly the latest permits, which are still good for something.
        let back = [0, 0, 0, 1, 1, 2, 3][random.usize(..7)];
        let what = match random.u8(..12) {
            0..5 => {
                let content = match random.u8(..8) {
                    0 => None,
                    1 => Some(1),
                    _ => Some(0),
                };
                What::Claim { content, again: random.u8(..4) == 0 }
            }
            5..7 => What::Heartbeat { back },
            7..10 => What::Complete { back, reply: reply(random) },
            _ => What::Release { back },
        };
        Self { key, what }
    }
}

fn reply(random: &mut fastrand::Rng) -> Option<Bytes> {
    match random.u8(..4) {
        0 => Some(Bytes::new()),
        1 => Some(Bytes::from_static(b"reply")),
        2 => Some(Bytes::from_static(&[0, 255, b'\'', 0])),
        _ => None,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, act) in self.acts.iter().enumerate() {
            match act {
                Act::Wait(time) => writeln!(f, "{number}: wait {} ms", time.as_millis())?,
                Act::Purge => writeln!(f, "{number}: purge")?,
                Act::AtOnce(asks) => {
                    let asks: Vec<_> = asks
                        .iter()
                        .map(|ask| format!("{:?} of {:?}", ask.what, KEYS[ask.key]))
                        .collect();
                    writeln!(f, "{number}: {}", asks.join(", and at once "))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_a_plan_can_be_left_out() {
        let plan = Plan::random(1, 60);
        let parts = plan.parts();
        assert!(parts > 60, "some are asked at once");
        for part in 0..parts {
            assert_eq!(plan.without(part).parts(), parts - 1);
        }
        assert_eq!(plan.until(9).acts.len(), 10);
    }
}
