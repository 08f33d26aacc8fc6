//! Sends what is in the outbox, as long as its service runs.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mmate_core::{Publisher, error_chain};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Settings;
use super::batch::{Batch, Sent};
use super::database::{Ask, OutboxDatabase, Rows as _, Table};
use super::metrics::Meters;
use super::middleware::Trouble;

/// So many batches are in hand at the same time: while one waits for its last confirmations, another
/// is on its way.
const AT_ONCE: usize = 2;

/// How often the rows are counted for the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(10);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(super) struct Sender<DB: OutboxDatabase> {
    pub(super) table: Arc<Table<DB>>,
    pub(super) settings: Settings,
    pub(super) publisher: Publisher,
    pub(super) wake: Arc<Notify>,
    pub(super) meters: Arc<Meters>,
    pub(super) trouble: Arc<Trouble>,
}

/// How one look into the outbox ended.
enum Round {
    /// There was nothing to send.
    Empty,
    Sent,
    /// The database or the broker does not do what it is asked.
    Trouble,
    /// The connection to the broker was closed by its owner.
    Closed,
}

impl<DB: OutboxDatabase> Sender<DB> {
    /// Sends until it is stopped, and then what is there to be sent without waiting.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let stop = stop.child_token();
        let working = join_all((0..AT_ONCE).map(|_| self.work(&stop)));
        tokio::select! {
            _ = working => {}
            () = self.count() => {}
        }
    }

    async fn work(&self, stop: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let ended = match self.round().await {
                Round::Closed => {
                    // Nor can the others send anything any more.
                    stop.cancel();
                    return;
                }
                Round::Sent => {
                    pause = FIRST_PAUSE;
                    continue;
                }
                Round::Empty => {
                    pause = FIRST_PAUSE;
                    self.rest(stop).await
                }
                Round::Trouble if stop.is_cancelled() => return,
                Round::Trouble => {
                    let jittered = pause.mul_f64(1.0 - 0.5 * fastrand::f64());
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    // What is woken for would not be sent either.
                    let _ = timeout(jittered, stop.cancelled()).await;
                    false
                }
            };
            if ended {
                return;
            }
        }
    }

    /// Waits until there may be something to send. True if there will be nothing any more: it was
    /// stopped before the last look.
    async fn rest(&self, stop: &CancellationToken) -> bool {
        if stop.is_cancelled() {
            return true;
        }
        // Instances that started together do not look together.
        let sweep = self.settings.sweep.mul_f64(0.5 + fastrand::f64());
        tokio::select! {
            // After the stop there is one more look: handlers may have committed just before.
            () = stop.cancelled() => {}
            () = self.wake.notified() => {}
            () = sleep(sweep) => {}
        }
        false
    }

    async fn round(&self) -> Round {
        let lease = self.settings.lease;
        let ask = Ask {
            claim: Uuid::now_v7().into_bytes(),
            lease: millis(lease),
            at_most: self.settings.batch.into(),
        };
        let asked = Instant::now();
        let claim = ask.claim;
        let table = Arc::clone(&self.table);
        let claimed = match to_its_end(async move { DB::Rows::claim(&table, &ask).await }).await {
            Ok(claimed) => claimed,
            Err(error) => {
                self.trouble.note("failed to look into the outbox", error_chain(&error));
                return Round::Trouble;
            }
        };
        if claimed.is_empty() {
            return Round::Empty;
        }
        if claimed.len() == self.settings.batch as usize {
            // There is more, for another.
            self.wake.notify_one();
        }
        let batch = Batch::new(self, claim, claimed, asked);
        match batch.send().await {
            Sent::Well => Round::Sent,
            Sent::InDoubt(error) => {
                self.trouble.note("the broker does not confirm messages of the outbox", error);
                Round::Trouble
            }
            Sent::Closed => Round::Closed,
        }
    }

    /// Tells from time to time how much there is.
    async fn count(&self) {
        loop {
            let table = Arc::clone(&self.table);
            match to_its_end(async move { DB::Rows::count(&table).await }).await {
                Ok((pending, dead)) => self.meters.waiting(pending, dead),
                Err(error) => {
                    let error = error_chain(&error);
                    tracing::debug!(error, "failed to count the messages in the outbox");
                }
            }
            sleep(COUNT_EVERY).await;
        }
    }
}

/// What is asked of a database is done to its end, also if a stop ends the wait for it: a connection
/// that is left in the middle of an answer may be of no use to its pool any more.
pub(super) async fn to_its_end<T: Send + 'static>(
    call: impl Future<Output = T> + Send + 'static,
) -> T {
    match tokio::spawn(call).await {
        Ok(answer) => answer,
        Err(died) if died.is_panic() => std::panic::resume_unwind(died.into_panic()),
        // The runtime ends, and this with it.
        Err(_) => std::future::pending().await,
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 8)
}
