//! A whole service that gets a stranger's message.

use std::time::Duration;

use mmate_core::transport::{Destination, Publication};
use mmate_core::{
    HandlerError, InProcess, Json, Reply, RetryPolicy, Service, Subscription, Transport,
};
use mmate_idempotency::{MemoryStore, Tracked};
use serde_json::Value;

const QUEUE: &str = "fuzz";

/// As of [`message`](super::message). The message is handled or dead-lettered, its second copy too, and the service goes
/// on: it handles the next one.
pub(super) fn read(input: &[u8]) {
    let Some(message) = super::message::parse(input) else { return };
    block_on(async {
        let broker = InProcess::new();
        let handler = async |Json(payload): Json<Value>| match payload.is_object() {
            true => Ok(Reply(payload)),
            false => Err(HandlerError::retryable("not an object")),
        };
        let subscription = Subscription::shared(QUEUE)
            .retry(RetryPolicy::fixed(Duration::from_secs(1)).max_attempts(2))
            .idempotent(Tracked::new(MemoryStore::new()))
            .handler(handler);
        let running = Service::new("fuzz")
            .subscribe(subscription)
            .start(broker.clone())
            .await
            .expect("it starts");
        let connection = broker.connect("stranger").await.expect("it is in the same process");
        for _ in 0..2 {
            let to_queue = Destination::Queue(QUEUE.into());
            let mut copy = message.clone();
            // One that expires may be gone before it is handled.
            copy.properties.expires_after = None;
            connection.publish(Publication::new(to_queue, copy)).await.expect("the queue is there");
        }
        let ended = tokio::time::timeout(Duration::from_secs(3_600), broker.idle()).await;
        assert!(ended.is_ok(), "it is still at work on it after an hour");
        let counts = running.stats().total();
        assert!(counts.is_conserved(), "{counts:?}");
        let handled = counts.succeeded + counts.duplicates.total();
        let dead = broker.dead_letters(QUEUE).len() as u64;
        assert_eq!(handled + dead, 2, "{counts:?}");
        running.stop().await.expect("it stops");
    });
}

/// On a clock that passes over waiting.
pub(super) fn block_on(future: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("it needs nothing").block_on(future);
}
