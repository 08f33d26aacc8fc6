//! What runs for one subscription: fetch, handle, settle.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::adoption::{AtWork, TakenUp};
use super::lanes::Lanes;
use super::pace::Pace;
use super::verdict::Verdict;
use crate::batch::{Batching, Setting};
use crate::context::{Context, Shared};
use crate::middleware::{Endpoint, Middleware, Next, catch_panic};
use crate::outcome::{DeadLetter, DeadReason, Outcome, brief};
use crate::reply::{self, Answering, LostReplies};
use crate::stats::Ledger;
use crate::subscription::{OrderKey, RetryPolicy, Subscription, TypeFilter};
use crate::topic::TopicPattern;
use crate::trace;
use crate::transport::{
    Consumer, Delivery, Settled, Settlement, TransportError, TransportErrorKind,
};

pub(super) struct Worker {
    concurrency: usize,
    prefetch: usize,
    order: Option<OrderKey>,
    /// Whether what is unsettled goes back only when all that runs is finished.
    keeps_order: bool,
    tasks: Arc<Tasks>,
}

/// What the handling of each message needs.
pub(super) struct Tasks {
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) at_work: Arc<AtWork>,
    retry: RetryPolicy,
    middleware: Vec<Arc<dyn Middleware>>,
    endpoint: Endpoint,
    batching: Option<Arc<dyn Batching>>,
    types: TypeFilter,
    lost_replies: LostReplies,
    /// What the bindings say, where a broker cannot: globs within a word.
    patterns: Option<Vec<(String, TopicPattern)>>,
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

/// A delivery that was looked at.
#[expect(clippy::large_enum_variant, reason = "a box would cost each message an allocation")]
pub(super) enum Opened {
    /// The subscription's filters do not take it.
    Foreign(Delivery),
    /// It cannot be handled: its properties or headers cannot be used, or its chain is too long.
    Dead(Delivery, DeadLetter),
    /// It is to be handled.
    Message(Delivery, Context),
}

impl Tasks {
    async fn handle(&self, delivery: Delivery, abort: &CancellationToken) {
        let (delivery, mut context) = match self.open(delivery) {
            Opened::Foreign(delivery) => return self.skip(delivery).await,
            Opened::Dead(delivery, letter) => return self.bury(delivery, letter).await,
            Opened::Message(delivery, context) => (delivery, context),
        };
        let body = &context.message().body;
        let at_hand = match self.at_work.take_up(context.message_id(), body, delivery) {
            TakenUp::New(at_hand) => at_hand,
            TakenUp::Adopted => return self.ledger.adopted(),
            TakenUp::Finished(delivery) => return self.adopt(*delivery).await,
        };
        let (verdict, span) = self.attempt(&mut context, abort).await;
        match verdict {
            Some(verdict) => {
                let delivery = |is_success| at_hand.end(is_success);
                self.finish(delivery, &context, verdict).instrument(span).await;
            }
            // The drain ran out of time.
            None => {
                self.count_aborted(&context);
                self.settle(at_hand.end(false), Settlement::Requeue).await;
            }
        }
    }

    /// Reads properties and headers, and asks the filters.
    pub(super) fn open(&self, mut delivery: Delivery) -> Opened {
        if !self.takes_topic(&delivery.exchange, &delivery.routing_key) {
            return Opened::Foreign(delivery);
        }
        match Context::read(&mut delivery, &self.shared) {
            Err(malformed) => {
                let letter = DeadLetter::new(DeadReason::Malformed, malformed.to_string());
                Opened::Dead(delivery, letter)
            }
            Ok(context) if context.hops() > self.shared.max_hops => {
                let detail = format!(
                    "{} messages came before it in its chain, and {} may",
                    context.hops(),
                    self.shared.max_hops
                );
                let letter = DeadLetter::new(DeadReason::HopLimit, detail);
                Opened::Dead(context.give_back(delivery), letter)
            }
            Ok(context) if !self.types.takes_all() && !self.types.takes(context.message_type()) => {
                Opened::Foreign(delivery)
            }
            Ok(context) => Opened::Message(delivery, context),
        }
    }

    /// Makes one attempt at handling a message; counted as fetched, and not yet as finished. There
    /// is no verdict if it was aborted.
    pub(super) async fn attempt(
        &self,
        context: &mut Context,
        abort: &CancellationToken,
    ) -> (Option<Verdict>, tracing::Span) {
        self.ledger.fetched();
        let span = trace::process(context, self.shared.publisher.system());
        let begin = Instant::now();
        let verdict = {
            let handling = async {
                let verdict = self.verdict(context).await;
                self.answer(context, verdict).await
            };
            let handling = handling.instrument(span.clone());
            tokio::select! {
                biased;
                verdict = handling => Some(verdict),
                () = abort.cancelled() => None,
            }
        };
        self.ledger.handled_within(begin.elapsed());
        if let Some(verdict) = &verdict {
            trace::ended(&span, &verdict.outcome);
        }
        (verdict, span)
    }

    /// Counts an attempt that the end of a drain dropped.
    pub(super) fn count_aborted(&self, context: &Context) {
        let deferred = Outcome::Defer { after: Duration::ZERO };
        self.ledger.finished(&deferred, context.is_unprotected());
    }

    /// Dead-letters a message that no attempt was made at.
    pub(super) async fn bury(&self, delivery: Delivery, letter: DeadLetter) {
        self.ledger.fetched();
        let attempts = delivery.failed_attempts.saturating_add(1);
        let verdict = Outcome::DeadLetter(letter).into();
        self.conclude(|_| delivery, attempts, verdict, false).await;
    }

    /// Counts and settles a message that an attempt was made at. The delivery is asked for at the
    /// last moment, and told whether the message needs no handling any more.
    pub(super) async fn finish(
        &self,
        delivery: impl FnOnce(bool) -> Delivery,
        context: &Context,
        verdict: Verdict,
    ) {
        self.conclude(delivery, context.attempt(), verdict, context.is_unprotected()).await;
    }

    /// Through middleware and handler; what failed is judged by the retry policy.
    async fn verdict(&self, context: &mut Context) -> Verdict {
        let attempt = context.attempt();
        let next = Next::new(&self.middleware, &self.endpoint);
        match catch_panic(next.run(context)).await {
            Ok(Outcome::Retry { after }) => {
                self.retry(attempt, after, "the handler asked for another attempt".to_owned())
            }
            Ok(outcome) => outcome.into(),
            Err(error) => match error.dead_reason() {
                Some(reason) => Outcome::DeadLetter(DeadLetter::new(reason, error.chain())).into(),
                None => self.retry(attempt, error.delay(), error.chain()),
            },
        }
    }

    /// Tells whoever asked what became of the message, before it is settled.
    async fn answer(&self, context: &Context, verdict: Verdict) -> Verdict {
        let tells_failures = self.endpoint.handler.answers();
        let answering = reply::answer(context, &verdict.outcome, tells_failures, self.lost_replies);
        match answering.await {
            Answering::Silent => verdict,
            Answering::Sent => {
                self.ledger.replied();
                verdict
            }
            Answering::Dropped => {
                self.ledger.reply_lost();
                verdict
            }
            Answering::Instead(outcome) => {
                self.ledger.reply_lost();
                outcome.into()
            }
            Answering::Again(error) => {
                self.ledger.reply_lost();
                self.retry(context.attempt(), None, error)
            }
        }
    }

    fn retry(&self, attempt: u32, asked: Option<Duration>, error: String) -> Verdict {
        let Some(delay) = self.retry.after(attempt) else {
            let detail = format!("attempt {attempt} was the last one: {error}");
            return Outcome::DeadLetter(DeadLetter::new(DeadReason::AttemptsExhausted, detail))
                .into();
        };
        let (after, error) = (asked.unwrap_or(delay), brief(error));
        tracing::warn!(attempt, ?after, error, "a message failed and will be retried");
        Verdict { outcome: Outcome::Retry { after: Some(after) }, error }
    }

    async fn conclude(
        &self,
        delivery: impl FnOnce(bool) -> Delivery,
        attempt: u32,
        verdict: Verdict,
        unprotected: bool,
    ) {
        let Verdict { outcome, error } = verdict;
        let settlement = match &outcome {
            Outcome::Done | Outcome::Answered(_) | Outcome::Duplicate(_) => Settlement::Ack,
            Outcome::Retry { after } => {
                Settlement::Retry { after: after.unwrap_or_default(), error }
            }
            Outcome::Defer { after } => Settlement::Defer { after: *after },
            Outcome::DeadLetter(letter) => {
                tracing::error!(
                    reason = %letter.reason,
                    detail = letter.detail,
                    subscription = &*self.shared.subscription,
                    "a message is dead-lettered"
                );
                Settlement::DeadLetter { letter: letter.clone(), attempts: attempt }
            }
        };
        // Counted first: who sees on the broker that a message is settled finds it in the counts.
        self.ledger.finished(&outcome, unprotected);
        let delivery = delivery(settlement == Settlement::Ack);
        self.settle(delivery, settlement).await;
    }

    async fn settle(&self, delivery: Delivery, settlement: Settlement) {
        let begin = Instant::now();
        let settled = delivery.settle(settlement).await;
        self.ledger.settled_within(begin.elapsed());
        if let Settled::Lost { reason } = settled {
            self.ledger.settlement_lost();
            tracing::debug!(reason, "a settlement was lost; the broker shows the message again");
        }
    }

    /// Acknowledges the redelivery of a message that was handled to its end here.
    pub(super) async fn adopt(&self, delivery: Delivery) {
        self.ledger.adopted();
        self.settle(delivery, Settlement::Ack).await;
    }

    pub(super) async fn skip(&self, delivery: Delivery) {
        self.ledger.filtered();
        self.settle(delivery, Settlement::Ack).await;
    }

    /// Has what has gathered for a batch handled without waiting for more.
    pub(super) fn flush(&self) {
        if let Some(batching) = &self.batching {
            batching.flush();
        }
    }

    /// The consumer ended, and nobody asked it to.
    pub(super) fn ended(&self) -> TransportError {
        let attempted = format!("consume for the subscription {}", self.shared.subscription);
        TransportError::new(TransportErrorKind::Closed, attempted)
    }

    /// A message that came by the queue's name is for this queue, whatever its topic.
    fn takes_topic(&self, exchange: &str, topic: &str) -> bool {
        let Some(patterns) = &self.patterns else { return true };
        exchange.is_empty() || patterns.iter().any(|(from, p)| from == exchange && p.matches(topic))
    }
}
