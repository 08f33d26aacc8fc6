//! Handlers that block their thread.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/counted.rs"]
mod counted;

use std::time::Duration;

use mmate_core::{HandlerError, InProcess, Outgoing, Service, Subscription};
use mmate_idempotency::{MemoryStore, Tracked};

use self::counted::Counted;

const LEASE: Duration = Duration::from_millis(300);

/// S18: of a runtime's threads, the one that waits for timers and sockets wakes a handler, runs it and
/// is blocked by it, while the others sleep until there is work. Nobody waits for timers then.
#[test]
fn a_handler_that_blocks_the_thread_with_the_timers_keeps_its_lease() {
    const ROUNDS: usize = 5;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = Counted::new(MemoryStore::new());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let handler = {
        let store = store.clone();
        move || {
            let (store, tell) = (store.clone(), tell.clone());
            async move {
                // A timer wakes it.
                tokio::time::sleep(LEASE / 10).await;
                let before = store.calls(["heartbeat"]);
                std::thread::sleep(LEASE * 3);
                tell.send(store.calls(["heartbeat"]) - before).unwrap();
                Ok::<(), HandlerError>(())
            }
        }
    };
    runtime.block_on(async move {
        let subscription = Subscription::per_service("q", ["thing.#"])
            .idempotent(Tracked::new(store).lease(LEASE))
            .handler(handler);
        let service = Service::new("s").subscribe(subscription);
        let running = service.start(InProcess::new()).await.unwrap();
        for round in 0..ROUNDS {
            let message = Outgoing::event("thing.made.eu", "Thing", &round);
            running.publisher().publish(message).await.unwrap();
            let beats = told.recv().await.unwrap();
            // One is due after each third of a lease.
            assert!(beats >= 3, "round {round}: {beats}");
        }
        running.stop().await.unwrap();
    });
}
