//! What is done while somebody else holds a claim.

use std::time::Duration;

use mmate_core::Surroundings;
use tokio::time::{Instant, sleep};

/// What becomes of a message whose key somebody else holds: with `Tracked` a copy of a message that
/// is being handled, with `Locked` any message of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnBusy {
    /// The broker shows it again later, which counts as no attempt. By then a copy is a duplicate,
    /// or it takes over from a holder that failed. The default.
    #[default]
    Defer,
    /// It waits for its turn here, with a handler's place taken, for so long; then it is deferred.
    /// Who waits is served in no particular order.
    Wait(Duration),
    /// It is acknowledged without being handled. **This loses the message**: with `Tracked` if the
    /// holder crashes, since nobody has a copy then; with `Locked` always, since the holder works on
    /// another message. Only for messages that may be lost.
    Drop,
}

impl OnBusy {
    /// Why a message may not wait for so long, if it may not.
    pub(in crate::strategy) fn check(self, surroundings: &Surroundings) -> Result<(), String> {
        match self {
            Self::Wait(longest) => surroundings
                .may_hold(&format!("a message waits up to {longest:?} for its turn"), longest),
            Self::Defer | Self::Drop => Ok(()),
        }
    }
}

/// A message's wait for its turn.
pub(in crate::strategy) struct Turn {
    on_busy: OnBusy,
    began: Option<Instant>,
    pause: Duration,
}

/// What is to be done with a message whose key somebody else holds.
pub(in crate::strategy) enum Waited {
    LookAgain,
    Defer,
    Drop,
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Turn {
    pub(in crate::strategy) fn new(on_busy: OnBusy) -> Self {
        Self { on_busy, began: None, pause: FIRST_PAUSE }
    }

    /// Waits for another look, if one is to be had.
    pub(in crate::strategy) async fn wait(&mut self) -> Waited {
        match self.on_busy {
            OnBusy::Drop => Waited::Drop,
            OnBusy::Wait(longest)
                if self.began.get_or_insert_with(Instant::now).elapsed() + self.pause
                    <= longest =>
            {
                sleep(self.pause.mul_f64(1.0 - 0.5 * fastrand::f64())).await;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                Waited::LookAgain
            }
            OnBusy::Wait(_) | OnBusy::Defer => Waited::Defer,
        }
    }
}
