//! A consumer on one channel.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::acks::{Frame, Hold, Window};
use crate::failure::Failure;
use crate::link::{Channel, Flush, Session};

/// A consumer on one channel of one connection. Its deliveries can be settled on that channel and
/// nowhere else: the numbers of another one mean other deliveries.
///
/// Acknowledgements are written by a task of its own, as few frames as may be: those of a finished
/// prefix together, and one that is finished out of order after a moment. They are not waited for:
/// the broker does not answer to them, and one that is lost on its way is shown again like one that
/// is lost in the network.
pub(crate) struct Incarnation {
    session: Arc<Session>,
    channel: Channel,
    /// Also held while its frames are handed over: a frame that comes after a later one with
    /// `multiple` would close the channel.
    window: Mutex<Window>,
    /// Wakes the task that writes.
    due: Arc<Notify>,
    ended: CancellationToken,
}

/// The longest that an acknowledgement waits for those before it.
const LONGEST_HOLD: Duration = Duration::from_millis(2);
/// The same when no more deliveries come: what is finished by then goes in one frame.
const LONGEST_HOLD_AT_THE_END: Duration = Duration::from_millis(100);

impl Incarnation {
    /// Of a consumer that holds so many deliveries at the most.
    pub(super) fn new(session: Arc<Session>, channel: Channel, prefetch: u16) -> Arc<Self> {
        let due = Arc::new(Notify::new());
        let window = Mutex::new(Window::new(prefetch));
        let ended = CancellationToken::new();
        let incarnation = Arc::new(Self { session, channel, window, due: Arc::clone(&due), ended });
        let this: Arc<dyn Flush> = Arc::<Self>::clone(&incarnation);
        incarnation.session.flush_before_close(&this);
        tokio::spawn(write(Arc::downgrade(&incarnation), due));
        incarnation
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether nothing can be settled on it any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.session.is_lost() || !self.channel.status().connected()
    }

    /// How many bytes the body of a delivery had, if they were too many to be held.
    pub(super) fn left_out(&self, tag: u64) -> Option<u64> {
        self.session.left_out(&self.channel, tag)
    }

    /// A delivery came, and is going to be settled.
    pub(crate) fn shown(&self, tag: u64) {
        self.window().shown(tag);
    }

    /// Acknowledges a delivery, soon.
    pub(crate) fn ack(&self, tag: u64) {
        if self.window().finished(tag) {
            self.due.notify_one();
        }
    }

    /// Rejects a delivery, at once.
    ///
    /// # Errors
    /// The channel cannot take it.
    pub(crate) fn nack(&self, tag: u64, requeue: bool) -> Result<(), Failure> {
        let mut window = self.window();
        self.write_nack(tag, BasicNackOptions { requeue, multiple: false })?;
        window.settled(tag);
        self.session.settled(1);
        Ok(())
    }

    /// No more deliveries come. Those that were fetched and not used go back when all before them
    /// is finished, or else after a moment.
    pub(super) fn drain(&self, unused: &[u64]) {
        self.window().drain(unused);
        self.due.notify_one();
    }

    /// Its stream of deliveries came to an end.
    pub(super) fn ended(&self) {
        self.ended.cancel();
    }

    /// Ready when its stream of deliveries came to an end.
    pub(super) async fn end(&self) {
        self.ended.cancelled().await;
    }

    /// Closes the channel; what is unsettled goes back.
    pub(super) async fn close(&self) {
        self.flush();
        self.session.close_channel(&self.channel).await;
    }

    /// Writes what is due. Returns how long what is not may wait, if anything waits.
    fn take(&self, hold: Hold) -> Option<Duration> {
        let mut window = self.window();
        let mut frames = 0;
        let waits = window.take(hold, |frame| {
            self.hand_over(frame);
            frames += 1;
        });
        self.session.settled(frames);
        let longest = match window.is_draining() {
            true => LONGEST_HOLD_AT_THE_END,
            false => LONGEST_HOLD,
        };
        waits.then_some(longest)
    }

    fn hand_over(&self, frame: Frame) {
        // What fails here fails for the channel, and the broker shows all of it again.
        let _ = match frame {
            Frame::Ack { tag, multiple } => {
                handed_over(self.channel.basic_ack(tag, BasicAckOptions { multiple }))
            }
            Frame::GiveBack { tag, multiple } => {
                self.write_nack(tag, BasicNackOptions { requeue: true, multiple })
            }
        };
    }

    fn write_nack(&self, tag: u64, options: BasicNackOptions) -> Result<(), Failure> {
        handed_over(self.channel.basic_nack(tag, options))
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        // Nothing panics between two changes that belong together.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands a frame to lapin for its next write, and does not wait until it is written.
fn handed_over(write: impl Future<Output = lapin::Result<()>>) -> Result<(), Failure> {
    write.now_or_never().unwrap_or(Ok(())).map_err(Failure::Broker)
}

/// Writes what is due, as long as the incarnation is in use.
async fn write(incarnation: Weak<Incarnation>, due: Arc<Notify>) {
    let mut until = None;
    loop {
        let hold = tokio::select! {
            biased;
            () = due.notified() => Hold::Some,
            () = reached(until) => Hold::None,
        };
        let Some(incarnation) = incarnation.upgrade() else { return };
        let longest = incarnation.take(hold);
        // What waits is not made to wait longer by what comes after it.
        until = longest.map(|longest| until.unwrap_or_else(|| Instant::now() + longest));
    }
}

async fn reached(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

impl Flush for Incarnation {
    fn flush(&self) {
        self.take(Hold::None);
    }
}

impl Drop for Incarnation {
    fn drop(&mut self) {
        self.flush();
        // The task ends.
        self.due.notify_one();
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incarnation").field("session", &self.session).finish_non_exhaustive()
    }
}
