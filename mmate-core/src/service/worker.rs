//! What runs for one subscription: fetch, handle, settle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::adoption::{AtWork, TakenUp};
use crate::context::{Context, Shared};
use crate::middleware::{Endpoint, Middleware, Next, catch_panic};
use crate::outcome::{DeadLetter, DeadReason, Outcome};
use crate::reply::{self, Answering, LostReplies};
use crate::stats::Ledger;
use crate::subscription::{RetryPolicy, Subscription, TypeFilter};
use crate::topic::TopicPattern;
use crate::trace;
use crate::transport::{
    Consumer, Delivery, Settled, Settlement, TransportError, TransportErrorKind,
};

pub(super) struct Worker {
    concurrency: usize,
    tasks: Arc<Tasks>,
}

/// What the handling of each message needs.
struct Tasks {
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    retry: RetryPolicy,
    middleware: Vec<Arc<dyn Middleware>>,
    endpoint: Endpoint,
    types: TypeFilter,
    lost_replies: LostReplies,
    /// What the bindings say, where a broker cannot: globs within a word.
    patterns: Option<Vec<(String, TopicPattern)>>,
    at_work: Arc<AtWork>,
}

/// How a handling ended.
struct Verdict {
    outcome: Outcome,
    /// What went wrong, for the headers of a retried message.
    error: String,
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, error: String::new() }
    }
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
        Self {
            concurrency: parts.concurrency,
            tasks: Arc::new(Tasks {
                shared,
                ledger,
                retry: parts.retry,
                middleware,
                endpoint: Endpoint { handler, timeout: parts.timeout },
                types: parts.types,
                lost_replies: parts.replies.lost,
                patterns,
                at_work: AtWork::new(parts.prefetch.get().into()),
            }),
        }
    }

    fn ended(&self) -> TransportError {
        let attempted = format!("consume for the subscription {}", self.tasks.shared.subscription);
        TransportError::new(TransportErrorKind::Closed, attempted)
    }

    /// Runs until it is stopped, then finishes what was begun. `abort` drops even that.
    pub(super) async fn run(
        self,
        mut consumer: Box<dyn Consumer>,
        stop: CancellationToken,
        abort: CancellationToken,
    ) -> Result<(), TransportError> {
        let mut running = JoinSet::new();
        let mut result = Ok(());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = running.join_next(), if !running.is_empty() => rethrow(ended),
                next = consumer.next(), if running.len() < self.concurrency => match next {
                    Some(Ok(delivery)) => {
                        let (tasks, abort) = (Arc::clone(&self.tasks), abort.clone());
                        running.spawn(async move { tasks.handle(delivery, &abort).await });
                    }
                    Some(Err(error)) => {
                        result = Err(error);
                        break;
                    }
                    // Nobody asked it to stop: a subscription never ends in silence.
                    None => {
                        result = Err(self.ended());
                        break;
                    }
                },
            }
        }
        consumer.stop().await;
        while let Some(ended) = running.join_next().await {
            rethrow(ended);
        }
        result
    }
}

/// A panic outside of handlers and middleware is a defect of ours, and must not pass in silence.
fn rethrow(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

impl Tasks {
    async fn handle(&self, mut delivery: Delivery, abort: &CancellationToken) {
        let exchange = delivery.exchange.clone();
        if !self.takes_topic(&exchange, &delivery.routing_key) {
            return self.skip(delivery).await;
        }
        let mut context = match Context::read(&mut delivery, &self.shared) {
            Ok(context) => context,
            Err(malformed) => {
                self.ledger.fetched();
                let letter = DeadLetter::new(DeadReason::Malformed, malformed.to_string());
                let attempts = delivery.failed_attempts.saturating_add(1);
                let verdict = Outcome::DeadLetter(letter).into();
                return self.finish(|_| delivery, attempts, verdict, false).await;
            }
        };
        if !self.types.takes_all() && !self.types.takes(context.message_type()) {
            return self.skip(delivery).await;
        }
        let body = &context.message().body;
        let at_hand = match self.at_work.take_up(context.message_id(), body, delivery) {
            TakenUp::New(at_hand) => at_hand,
            TakenUp::Adopted => return self.ledger.adopted(),
            TakenUp::Finished(delivery) => {
                self.ledger.adopted();
                return self.settle(*delivery, Settlement::Ack).await;
            }
        };
        self.ledger.fetched();
        let attempt = context.attempt();
        let span = trace::process(&context, self.shared.publisher.system());
        let begin = Instant::now();
        let verdict = {
            let handling = async {
                let verdict = self.verdict(&mut context).await;
                self.answer(&context, verdict).await
            };
            let handling = handling.instrument(span.clone());
            tokio::select! {
                verdict = handling => Some(verdict),
                () = abort.cancelled() => None,
            }
        };
        let unprotected = context.is_unprotected();
        self.ledger.handled_within(begin.elapsed());
        match verdict {
            Some(verdict) => {
                trace::ended(&span, &verdict.outcome);
                let delivery = |is_success| at_hand.end(is_success);
                self.finish(delivery, attempt, verdict, unprotected).instrument(span).await;
            }
            // The drain ran out of time.
            None => {
                let deferred = Outcome::Defer { after: Duration::ZERO };
                self.ledger.finished(&deferred, unprotected);
                self.settle(at_hand.end(false), Settlement::Requeue).await;
            }
        }
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
        let after = asked.unwrap_or(delay);
        tracing::warn!(attempt, ?after, error, "a message failed and will be retried");
        Verdict { outcome: Outcome::Retry { after: Some(after) }, error }
    }

    /// Settles a delivery by its verdict. It is asked for at the last moment, and told whether the
    /// message needs no handling any more.
    async fn finish(
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

    async fn skip(&self, delivery: Delivery) {
        self.ledger.filtered();
        self.settle(delivery, Settlement::Ack).await;
    }

    /// A message that came by the queue's name is for this queue, whatever its topic.
    fn takes_topic(&self, exchange: &str, topic: &str) -> bool {
        let Some(patterns) = &self.patterns else { return true };
        exchange.is_empty() || patterns.iter().any(|(from, p)| from == exchange && p.matches(topic))
    }
}
