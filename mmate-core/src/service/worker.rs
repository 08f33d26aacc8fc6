//! What runs for one subscription: it fetches, and has each message handled.

use std::pin::pin;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::adoption::AtWork;
use super::lanes::Lanes;
use super::pace::Pace;
use super::tasks::Tasks;
use crate::batch::Setting;
use crate::context::Shared;
use crate::middleware::Endpoint;
use crate::stats::Ledger;
use crate::subscription::{OrderKey, Subscription};
use crate::transport::{Consumer, Delivery, TransportError};

pub(super) struct Worker {
    concurrency: usize,
    prefetch: usize,
    order: Option<OrderKey>,
    /// Whether what is unsettled goes back only when all that runs is finished.
    keeps_order: bool,
    tasks: Arc<Tasks>,
}

impl Worker {
    pub(super) fn new(
        subscription: Subscription,
        shared: Arc<Shared>,
        ledger: Arc<Ledger>,
    ) -> Self {
        let Subscription { parts, handler } = subscription;
        let globs = parts.bindings.iter().any(|binding| binding.pattern.needs_filter());
        let patterns = globs.then(|| {
            let pair = |b: &crate::transport::Binding| (b.exchange.clone(), b.pattern.clone());
            parts.bindings.iter().map(pair).collect()
        });
        let middleware = parts.all_middleware();
        let (mut concurrency, mut timeout) = (parts.concurrency, parts.timeout);
        let batching = handler.batching().cloned();
        if let Some(batching) = &batching {
            // Its messages are all inside at once, and the time is that of the batch.
            concurrency = concurrency.saturating_mul(batching.policy().size);
            batching.prepare(Setting {
                subscription: Arc::clone(&shared.subscription),
                timeout: timeout.take(),
                concurrency: parts.concurrency,
                state: Arc::clone(&shared.state),
            });
        }
        Self {
            concurrency,
            prefetch: usize::from(parts.prefetch.get())
                .saturating_mul(parts.partitions.unwrap_or(1).into()),
            order: parts.order,
            keeps_order: parts.single_active_consumer || parts.partitions.is_some(),
            tasks: Arc::new(Tasks {
                shared,
                ledger,
                at_work: AtWork::new(parts.prefetch.get().into()),
                retry: parts.retry,
                middleware,
                endpoint: Endpoint { handler, timeout },
                batching,
                types: parts.types,
                lost_replies: parts.replies.lost,
                patterns,
            }),
        }
    }

    /// Runs until it is stopped, then finishes what was begun. `abort` drops even that.
    pub(super) async fn run(
        self,
        mut consumer: Box<dyn Consumer>,
        stop: CancellationToken,
        abort: CancellationToken,
    ) -> Result<(), TransportError> {
        if let Some(key) = self.order {
            let lanes = Lanes::new(self.tasks, key, self.concurrency, self.prefetch);
            return lanes.run(consumer, stop, abort).await;
        }
        let mut handlings = Handlings::new(&self.tasks, &abort);
        let mut result = Ok(());
        let mut stopped = pin!(stop.cancelled());
        loop {
            let has_room = handlings.running.len() < self.concurrency;
            tokio::select! {
                biased;
                () = &mut stopped => break,
                Some(ended) = handlings.running.join_next(), if !handlings.running.is_empty() => {
                    rethrow(ended);
                }
                next = consumer.next(), if has_room => match next {
                    Some(Ok(delivery)) => {
                        handlings.begin(delivery);
                        for _ in 1..AT_A_TIME {
                            handlings.reap();
                            if handlings.running.len() >= self.concurrency || stop.is_cancelled() {
                                break;
                            }
                            let Some(delivery) = consumer.try_next() else { break };
                            handlings.begin(delivery);
                        }
                        // What reads and writes for us has its turn.
                        tokio::task::yield_now().await;
                    }
                    Some(Err(error)) => {
                        result = Err(error);
                        break;
                    }
                    // Nobody asked it to stop: a subscription never ends in silence.
                    None => {
                        result = Err(self.tasks.ended());
                        break;
                    }
                },
            }
        }
        self.tasks.flush();
        if !self.keeps_order {
            consumer.stop().await;
        }
        while let Some(ended) = handlings.running.join_next().await {
            rethrow(ended);
        }
        if self.keeps_order {
            consumer.leave().await;
        }
        result
    }
}

/// How many messages are begun at the most before others have their turn.
const AT_A_TIME: usize = 64;

/// The handlings of a subscription without order.
struct Handlings<'a> {
    tasks: &'a Arc<Tasks>,
    abort: &'a CancellationToken,
    pace: Pace,
    /// Those that were not done at once.
    running: JoinSet<()>,
}

impl<'a> Handlings<'a> {
    fn new(tasks: &'a Arc<Tasks>, abort: &'a CancellationToken) -> Self {
        Self { tasks, abort, pace: Pace::default(), running: JoinSet::new() }
    }

    fn begin(&mut self, delivery: Delivery) {
        let (tasks, abort) = (Arc::clone(self.tasks), self.abort.clone());
        let handling = Box::pin(async move { tasks.handle(delivery, &abort).await });
        if let Some(handling) = self.pace.begin(handling) {
            self.running.spawn(handling);
        }
    }

    fn reap(&mut self) {
        while let Some(ended) = self.running.try_join_next() {
            rethrow(ended);
        }
    }
}

/// A panic outside of handlers and middleware is a defect of ours, and must not pass in silence.
pub(super) fn rethrow(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
