//! Where the messages of a batch meet.
//!
//! Each message goes through its middleware on a task of its own. At the end of it, where a handler
//! would be, it meets the others: the batch runs on a task that the first of them starts, and each
//! takes its own outcome back through its middleware. So what middleware does for one message, such
//! as suppressing duplicates, it does for each of a batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Assembly, Batch, BatchContext, BatchHandler, BatchItem, BatchOutcome, BatchPolicy, BatchTerms,
    Seat,
};
use crate::context::{Context, Extensions};
use crate::middleware::{TimedOut, catch_panic};
use crate::outcome::{DeadReason, HandlerError, Outcome};

/// What a batch handler has to know of its subscription.
pub(crate) struct Setting {
    pub(crate) subscription: Arc<str>,
    /// For one handling.
    pub(crate) timeout: Option<Duration>,
    /// How many batches are handled at the same time.
    pub(crate) concurrency: usize,
    pub(crate) state: Arc<Extensions>,
}

/// A batch handler as its subscription's worker sees it.
pub(crate) trait Batching: Send + Sync {
    fn policy(&self) -> BatchPolicy;

    /// How batches gather, for middleware that does it itself.
    fn terms(&self) -> BatchTerms;

    /// Called once, before the first message.
    fn prepare(&self, setting: Setting);

    /// From now on no batch waits for more.
    fn flush(&self);
}

/// A batch handler as the end of each message's way.
pub(crate) struct Gatherer<H: BatchHandler<Args>, Args>(Arc<Inner<H, Args>>);

struct Inner<H: BatchHandler<Args>, Args> {
    handler: H,
    policy: BatchPolicy,
    prepared: OnceLock<Prepared>,
    flush: CancellationToken,
    gathering: Mutex<Gathering<H::Payload>>,
}

struct Prepared {
    subscription: Arc<str>,
    timeout: Option<Duration>,
    slots: Semaphore,
    state: Arc<Extensions>,
}

struct Gathering<T> {
    last: u64,
    /// The one that has room.
    open: Option<u64>,
    batches: HashMap<u64, Vec<Member<T>>>,
}

struct Member<T> {
    item: BatchItem<T>,
    answer: oneshot::Sender<Result<Outcome, HandlerError>>,
    full: Arc<Notify>,
}

impl<H: BatchHandler<Args>, Args: 'static> Gatherer<H, Args> {
    pub(crate) fn new(handler: H, policy: BatchPolicy) -> Self {
        let gathering = Gathering { last: 0, open: None, batches: HashMap::new() };
        Self(Arc::new(Inner {
            handler,
            policy,
            prepared: OnceLock::new(),
            flush: CancellationToken::new(),
            gathering: Mutex::new(gathering),
        }))
    }

    /// Takes part in a batch.
    pub(crate) fn take_part<'a>(
        &'a self,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<Outcome, HandlerError>> {
        Box::pin(async move {
            // Before it meets the others: what cannot be decoded is no business of theirs.
            let value = context
                .envelope()?
                .payload()
                .map_err(|error| HandlerError::dead(DeadReason::Undecodable, error))?;
            let answer = self.join(value, context);
            let lost = || HandlerError::retryable("the batch ended without an outcome");
            answer.await.unwrap_or_else(|_| Err(lost()))
        })
    }

    fn join(
        &self,
        value: H::Payload,
        context: &Context,
    ) -> oneshot::Receiver<Result<Outcome, HandlerError>> {
        let (answer, answered) = oneshot::channel();
        let seat = context.extension::<Seat>();
        let assembly = seat.map(Seat::assembly);
        let item = BatchItem {
            place: seat.map_or(0, Seat::place),
            value,
            meta: context.meta().clone(),
            topic: context.routing_key().to_owned(),
            attempt: context.attempt(),
            publisher: context.publisher().clone(),
        };
        let mut gathering = self.0.lock();
        let number = gathering.number(assembly);
        let members = gathering.batches.entry(number).or_default();
        let full = members.first().map_or_else(Arc::default, |first| Arc::clone(&first.full));
        members.push(Member { item, answer, full: Arc::clone(&full) });
        let count = members.len();
        let is_full = count >= self.0.policy.size;
        if assembly.is_none() {
            gathering.open = (!is_full).then_some(number);
        }
        drop(gathering);
        if let Some(seat) = seat {
            seat.take();
        }
        if is_full {
            full.notify_one();
        }
        if count == 1 {
            let (inner, assembly) = (Arc::clone(&self.0), assembly.cloned());
            tokio::spawn(async move { inner.run(number, &full, assembly).await });
        }
        answered
    }
}

impl<T> Gathering<T> {
    /// The batch that the next message is in.
    fn number(&mut self, assembly: Option<&Assembly>) -> u64 {
        let Self { last, open, .. } = self;
        let next = || {
            *last += 1;
            *last
        };
        match assembly {
            Some(assembly) => assembly.number(next),
            None => open.unwrap_or_else(next),
        }
    }
}

impl<H: BatchHandler<Args>, Args> Inner<H, Args> {
    fn lock(&self) -> MutexGuard<'_, Gathering<H::Payload>> {
        // Nothing panics while it is held.
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a batch to be due, and handles it.
    async fn run(&self, number: u64, full: &Notify, assembly: Option<Assembly>) {
        match &assembly {
            Some(assembly) => assembly.complete().await,
            None => tokio::select! {
                () = full.notified() => {}
                () = tokio::time::sleep(self.policy.within) => {}
                () = self.flush.cancelled() => {}
            },
        }
        let Some(prepared) = self.prepared.get() else { return };
        // It may still grow while others have the slots.
        let Ok(_slot) = prepared.slots.acquire().await else { return };
        let mut members = {
            let mut gathering = self.lock();
            if gathering.open == Some(number) {
                gathering.open = None;
            }
            gathering.batches.remove(&number).unwrap_or_default()
        };
        if let Some(assembly) = &assembly {
            if members.iter().any(|member| member.answer.is_closed()) {
                assembly.break_up();
            }
            if assembly.is_broken() {
                return;
            }
            members.sort_by_key(|member| member.item.place);
        }
        let (mut items, mut answers) = (Vec::new(), Vec::new());
        // Whoever has left meanwhile, at the end of a drain or without its lease, takes no part.
        for member in members.into_iter().filter(|member| !member.answer.is_closed()) {
            items.push(BatchItem { place: items.len(), ..member.item });
            answers.push(member.answer);
        }
        if items.is_empty() {
            return;
        }
        let span = tracing::info_span!(
            "mmate.handle_batch",
            subscription = &*prepared.subscription,
            messages = items.len(),
        );
        let handled = {
            let context = BatchContext { state: Arc::clone(&prepared.state), assembly };
            let handling = self.handle(Batch { items }, &context, prepared).instrument(span);
            let left = join_all(answers.iter_mut().map(oneshot::Sender::closed));
            tokio::select! {
                handled = handling => handled,
                // Nobody waits for it any more: it is dropped, as a single handler would be.
                _ = left => return,
            }
        };
        match handled {
            Ok(mut outcome) => {
                for (place, answer) in answers.into_iter().enumerate() {
                    let _ = answer.send(outcome.take(place));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for answer in answers {
                    let _ = answer.send(Err(HandlerError::shared(&error)));
                }
            }
        }
    }

    async fn handle(
        &self,
        batch: Batch<H::Payload>,
        context: &BatchContext,
        prepared: &Prepared,
    ) -> Result<BatchOutcome, HandlerError> {
        let handling = catch_panic(async { self.handler.call(batch, context).await });
        match prepared.timeout {
            None => handling.await,
            Some(limit) => match tokio::time::timeout(limit, handling).await {
                Ok(handled) => handled,
                Err(_) => Err(HandlerError::retryable(TimedOut { limit })),
            },
        }
    }
}

impl<H: BatchHandler<Args>, Args: 'static> Batching for Gatherer<H, Args> {
    fn policy(&self) -> BatchPolicy {
        self.0.policy
    }

    fn terms(&self) -> BatchTerms {
        BatchTerms { policy: self.0.policy, flush: self.0.flush.clone() }
    }

    fn prepare(&self, setting: Setting) {
        let Setting { subscription, timeout, concurrency, state } = setting;
        let slots = Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS));
        let prepared = Prepared { subscription, timeout, slots, state };
        // A subscription has one worker.
        let _ = self.0.prepared.set(prepared);
    }

    fn flush(&self) {
        self.0.flush.cancel();
    }
}
