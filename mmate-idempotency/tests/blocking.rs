//! Handlers that block their thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mmate_core::{HandlerError, InProcess, Outgoing, Service, Subscription};
use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::{ClaimRequest, Promises};
use mmate_idempotency::{MemoryStore, Permit, Store, StoreError, Tracked};

const LEASE: Duration = Duration::from_millis(300);

/// A store that counts its heartbeats.
struct Counted {
    store: MemoryStore,
    beats: Arc<AtomicUsize>,
}

#[async_trait]
impl Store for Counted {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn promises(&self) -> Promises {
        self.store.promises()
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        self.store.claim(request).await
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        self.beats.fetch_add(1, Ordering::SeqCst);
        self.store.heartbeat(permit, lease).await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        self.store.complete(permit, reply).await
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        self.store.release(permit).await
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        self.store.purge(at_most).await
    }
}

/// S18: of a runtime's threads, the one that waits for timers and sockets wakes a handler, runs it and
/// is blocked by it, while the others sleep until there is work. Nobody waits for timers then.
#[test]
fn a_handler_that_blocks_the_thread_with_the_timers_keeps_its_lease() {
    const ROUNDS: usize = 5;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let beats = Arc::new(AtomicUsize::new(0));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let handler = {
        let beats = Arc::clone(&beats);
        move || {
            let (beats, tell) = (Arc::clone(&beats), tell.clone());
            async move {
                // A timer wakes it.
                tokio::time::sleep(LEASE / 10).await;
                let before = beats.load(Ordering::SeqCst);
                std::thread::sleep(LEASE * 3);
                tell.send(beats.load(Ordering::SeqCst) - before).unwrap();
                Ok::<(), HandlerError>(())
            }
        }
    };
    let store = Counted { store: MemoryStore::new(), beats };
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
