//! What is done for each message: look, handle, settle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::adoption::{AtWork, TakenUp};
use super::verdict::Verdict;
use crate::batch::Batching;
use crate::context::{Context, Shared};
use crate::middleware::{Endpoint, Middleware, Next, catch_panic};
use crate::outcome::{DeadLetter, DeadReason, Outcome, brief};
use crate::reply::{self, Answering, LostReplies};
use crate::stats::Ledger;
use crate::subscription::{RetryPolicy, TypeFilter};
use crate::topic::TopicPattern;
use crate::trace;
use crate::transport::{Delivery, Settled, Settlement, TransportError, TransportErrorKind};

/// What the handling of each message needs.
pub(super) struct Tasks {
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) at_work: Arc<AtWork>,
    pub(super) retry: RetryPolicy,
    pub(super) middleware: Vec<Arc<dyn Middleware>>,
    pub(super) endpoint: Endpoint,
    pub(super) batching: Option<Arc<dyn Batching>>,
    pub(super) types: TypeFilter,
    pub(super) lost_replies: LostReplies,
    /// What the bindings say, where a broker cannot: globs within a word.
    pub(super) patterns: Option<Vec<(String, TopicPattern)>>,
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
    /// Handles a message by itself, from its delivery to its settlement.
    pub(super) async fn handle(&self, delivery: Delivery, abort: &CancellationToken) {
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
