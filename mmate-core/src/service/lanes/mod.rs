//! Ordered lanes: the messages of one key one after another, different keys in parallel.
//!
//! A lane is a task that lives as long as its key has messages here. An attempt needs one of the
//! subscription's slots; a lane that waits for its next attempt holds none. Deliveries whose
//! connection is gone are let go of before their turn, since their messages come again, behind them
//! in the same lane.

mod table;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::table::{Item, Table};
use super::tasks::{Opened, Tasks};
use super::worker::rethrow;
use crate::context::Context;
use crate::outcome::Outcome;
use crate::subscription::OrderKey;
use crate::transport::{Consumer, Delivery, TransportError};

/// The longest that a message waits in the process for its next attempt. RabbitMQ takes back all
/// that a consumer has when one delivery is older than 30 minutes, and a handling takes its time.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(20 * 60);

/// What runs for an ordered subscription.
pub(super) struct Lanes {
    key: OrderKey,
    shared: Arc<SharedByLanes>,
    lanes: JoinSet<()>,
}

struct SharedByLanes {
    tasks: Arc<Tasks>,
    table: Table,
    slots: Semaphore,
}

impl Lanes {
    pub(super) fn new(
        tasks: Arc<Tasks>,
        key: OrderKey,
        concurrency: usize,
        prefetch: usize,
    ) -> Self {
        let slots = Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS));
        let shared = SharedByLanes { tasks, table: Table::new(prefetch), slots };
        Self { key, shared: Arc::new(shared), lanes: JoinSet::new() }
    }

    /// Runs until it is stopped, then finishes what was begun. `abort` drops even that.
    pub(super) async fn run(
        mut self,
        mut consumer: Box<dyn Consumer>,
        stop: CancellationToken,
        abort: CancellationToken,
    ) -> Result<(), TransportError> {
        // It also ends the lanes when the consumer fails.
        let stop = stop.child_token();
        let mut result = Ok(());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.lanes.join_next(), if !self.lanes.is_empty() => rethrow(ended),
                next = consumer.next() => match next {
                    Some(Ok(delivery)) => self.take_up(delivery, &stop, &abort),
                    Some(Err(error)) => {
                        result = Err(error);
                        break;
                    }
                    None => {
                        result = Err(self.shared.tasks.ended());
                        break;
                    }
                },
            }
        }
        stop.cancel();
        self.shared.tasks.flush();
        while let Some(ended) = self.lanes.join_next().await {
            rethrow(ended);
        }
        // Only now, and in one step: what waited is back before anybody is given what is behind it.
        consumer.leave().await;
        result
    }

    /// Puts a message into its lane.
    fn take_up(&mut self, delivery: Delivery, stop: &CancellationToken, abort: &CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let (delivery, context) = match shared.tasks.open(delivery) {
            Opened::Message(delivery, context) => (delivery, context),
            Opened::Foreign(delivery) => {
                self.lanes.spawn(async move { shared.tasks.skip(delivery).await });
                return;
            }
            Opened::Dead(delivery, letter) => {
                self.lanes.spawn(async move { shared.tasks.bury(delivery, letter).await });
                return;
            }
        };
        let (stop, abort) = (stop.clone(), abort.clone());
        match self.key.text(&context) {
            Ok(Some(key)) => {
                if shared.table.push(&key, Item { delivery, context }) {
                    self.lanes.spawn(async move { shared.serve(&key, &stop, &abort).await });
                }
            }
            Ok(None) => {
                let item = Item { delivery, context };
                self.lanes.spawn(async move { shared.handle(item, &stop, &abort).await });
            }
            Err(letter) => {
                let delivery = context.give_back(delivery);
                self.lanes.spawn(async move { shared.tasks.bury(delivery, letter).await });
            }
        }
    }
}

impl SharedByLanes {
    /// Handles the messages of one lane until there are none, or until it is stopped: the rest then
    /// goes back unsettled.
    async fn serve(&self, key: &str, stop: &CancellationToken, abort: &CancellationToken) {
        while !stop.is_cancelled()
            && let Some(item) = self.table.next(key)
        {
            self.handle(item, stop, abort).await;
        }
    }

    /// Handles a message with all its attempts.
    async fn handle(&self, item: Item, stop: &CancellationToken, abort: &CancellationToken) {
        let Item { delivery, mut context } = item;
        if self.tasks.at_work.is_finished(&context) {
            return self.tasks.adopt(delivery).await;
        }
        if context.redelivered()
            && let Some((attempt, deferrals)) = self.table.recall(&context)
        {
            context = context.resumed(attempt, deferrals);
        }
        loop {
            let slot = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                slot = self.slots.acquire() => slot,
            };
            if delivery.is_lost() {
                // Its message comes again, behind this one, and goes on where this one was.
                self.table.remember(&context);
                return;
            }
            let (verdict, span) = self.tasks.attempt(&mut context, abort).await;
            let Some(verdict) = verdict else {
                self.tasks.count_aborted(&context);
                return;
            };
            let unprotected = context.is_unprotected();
            let after = match &verdict.outcome {
                Outcome::Retry { after } => {
                    let after = after.unwrap_or_default();
                    self.tasks.ledger.finished(&verdict.outcome, unprotected);
                    context = context.after_failure();
                    after
                }
                Outcome::Defer { after } => {
                    let after = *after;
                    self.tasks.ledger.finished(&verdict.outcome, unprotected);
                    context = context.after_deferral();
                    after
                }
                _ => {
                    if delivery.is_lost() {
                        match verdict.is_success() {
                            true => self.tasks.at_work.ended_lost(&context),
                            false => self.table.remember(&context),
                        }
                    }
                    return self
                        .tasks
                        .finish(|_| delivery, &context, verdict)
                        .instrument(span)
                        .await;
                }
            };
            drop(slot);
            if self.wait(&context, after, stop).await.is_err() {
                return;
            }
        }
    }

    async fn wait(
        &self,
        context: &Context,
        after: Duration,
        stop: &CancellationToken,
    ) -> Result<(), Stopped> {
        if after > LONGEST_WAIT {
            tracing::warn!(
                subscription = context.subscription(),
                asked = ?after,
                cut_to = ?LONGEST_WAIT,
                "a message of an ordered subscription keeps its delivery while it waits, and cannot \
                 wait so long"
            );
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Stopped),
            () = tokio::time::sleep(after.min(LONGEST_WAIT)) => Ok(()),
        }
    }
}

/// The service stops; what waits goes back.
struct Stopped;
