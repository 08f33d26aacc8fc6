//! The way over RabbitMQ: a queue for each listener, and a strategy in place of the processor.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use mmate_core::{HandlerError, Json, Meta, RetryPolicy, Scope, Service, State, Subscription};
use mmate_idempotency::Tracked;
use mmate_idempotency::store::Store;
use serde_json::value::RawValue;

use crate::event::{Event, SCOPE};
use crate::options::ListenerOptions;
use crate::processor::Worker;
use crate::tally::{Outcome, Tally};

/// What the producer publishes under.
pub(crate) const TOPIC: &str = "event.published.all";

/// A listener as a service. Its queue is named after it, and keeps what comes while it is away: a
/// subscription `per_instance` would be gone with the process, and what is published while no
/// listener runs would be lost.
pub(crate) fn service(
    options: &ListenerOptions,
    store: Arc<dyn Store>,
    worker: Worker,
    tally: Arc<Tally>,
) -> Service {
    let records = Tracked::new(store).lease(options.work.lease());
    // After some twenty minutes without a database an event is in the dead-letter queue.
    let retry = RetryPolicy::exponential(Duration::from_secs(1), Duration::from_secs(60));
    let subscription = Subscription::per_service(&*options.instance_id, [TOPIC])
        .scope(Scope::Named(SCOPE.to_owned()))
        .concurrency(options.work.concurrency.into())
        .prefetch(NonZeroU16::MIN.saturating_add(4 * options.work.concurrency))
        .retry(retry.max_attempts(20))
        .idempotent(records)
        .handler(process);
    Service::new("event-processor")
        .instance(&*options.instance_id)
        .state(worker)
        .state(tally)
        .subscribe(subscription)
}

async fn process(
    Json(payload): Json<Box<RawValue>>,
    meta: Meta,
    State(worker): State<Worker>,
    State(tally): State<Arc<Tally>>,
) -> Result<(), HandlerError> {
    let event_id = meta.id.ok_or_else(|| HandlerError::permanent("it has no id"))?;
    let listener = Arc::clone(&worker.listener);
    if worker.work(Event { event_id, payload }).await? {
        tally.add(&listener, Outcome::Stored);
    }
    Ok(())
}
