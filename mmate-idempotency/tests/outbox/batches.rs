//! What the handlers of batches publish.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mmate_core::{Batch, BatchPolicy, HandlerError, Service, State, Subscription};
use mmate_idempotency::{Outbox, OutboxError, Transactional, Tx};
use sqlx::Sqlite;

use crate::bench::{Bench, note, until};
use crate::handlers::thing;

static HAS_FAILED: AtomicBool = AtomicBool::new(false);

async fn note_each(
    batch: Batch<String>,
    mut tx: Tx<Sqlite>,
    State(outbox): State<Outbox<Sqlite>>,
) -> Result<(), HandlerError> {
    let of_nobody = outbox.publish(&mut tx, note("of nobody")).await.unwrap_err();
    assert!(matches!(of_nobody, OutboxError::OfABatch), "{of_nobody}");
    assert!(of_nobody.to_string().contains(".publish_for(&mut tx, &item, message)"));
    for item in &batch {
        let of = item.meta().id.as_ref().map(ToString::to_string).unwrap_or_default();
        outbox.publish_for(&mut tx, item, note(&of)).await?;
    }
    match HAS_FAILED.swap(true, Ordering::SeqCst) {
        true => Ok(()),
        false => Err(HandlerError::retryable("the first time")),
    }
}

/// S24, S28: once for each message, at once after the commit, also if the batch was handled before in vain.
#[tokio::test]
async fn what_a_batch_publishes_is_sent_once_for_each_of_its_messages() {
    let bench = Bench::<Sqlite>::new().await;
    // The sender has looked before there is anything, and would look again in an hour.
    let outbox = bench.outbox().sweep_every(Duration::from_secs(3_600));
    let policy = BatchPolicy::up_to(3).within(Duration::from_secs(10));
    let subscription = Subscription::per_service("q", ["thing.#"])
        .middleware(outbox.clone())
        .idempotent(Transactional::new(bench.place.pool.clone()))
        .batch_handler(policy, note_each);
    let service = Service::new("s").state(outbox).subscribe(subscription);
    let running = service.start(bench.broker.clone()).await.unwrap();
    for id in ["a", "b", "c", "d", "e", "f"] {
        running.publisher().publish(thing(id)).await.unwrap();
    }
    until("all are sent", async || bench.payloads().len() >= 6).await;
    bench.emptied().await;
    let mut payloads = bench.payloads();
    payloads.sort_unstable();
    assert_eq!(payloads, ["a", "b", "c", "d", "e", "f"]);
    let ids: BTreeSet<_> = bench.arrived().into_iter().map(|arrived| arrived.id).collect();
    assert_eq!(ids.len(), 6);
    running.stop().await.unwrap();
}
