//! Copies of what this process has lately done.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mmate_core::{
    Counts, HandlerError, InProcess, Outgoing, RetryPolicy, Running, Service, Subscription,
};
use mmate_idempotency::protocol::{Claim, Held, Retention};
use mmate_idempotency::store::{ClaimRequest, Promises};
use mmate_idempotency::{MemoryStore, Permit, Store, StoreError, Tracked};

/// A store that others may use too, and that counts its claims.
#[derive(Clone)]
struct Shared {
    store: MemoryStore,
    shared: bool,
    window: Option<Retention>,
    claims: Arc<AtomicUsize>,
}

impl Shared {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            shared: true,
            window: Some(Retention::default()),
            claims: Arc::default(),
        }
    }

    fn claims(&self) -> usize {
        self.claims.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Store for Shared {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn promises(&self) -> Promises {
        Promises { shared: self.shared, ..self.store.promises() }
    }

    fn remembers(&self) -> Option<Retention> {
        self.window
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        self.store.claim(request).await
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
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

/// A service that counts what it does, and fails first as often as it is told to.
struct House {
    broker: InProcess,
    running: Running,
    effects: Arc<AtomicUsize>,
}

impl House {
    async fn with(tracked: Tracked) -> Self {
        Self::that_fails(tracked, 0).await
    }

    async fn that_fails(tracked: Tracked, failures: usize) -> Self {
        let (effects, failed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&effects);
        let handler = move || {
            let (effects, failed) = (Arc::clone(&counted), Arc::clone(&failed));
            async move {
                if failed.fetch_add(1, Ordering::SeqCst) < failures {
                    return Err(HandlerError::retryable("not yet"));
                }
                effects.fetch_add(1, Ordering::SeqCst);
                Ok::<(), HandlerError>(())
            }
        };
        let subscription = Subscription::per_service("q", ["thing.#"])
            .retry(RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(9))
            .idempotent(tracked)
            .handler(handler);
        let broker = InProcess::new();
        let service = Service::new("s").subscribe(subscription);
        let running = service.start(broker.clone()).await.unwrap();
        Self { broker, running, effects }
    }

    async fn publish(&self, payload: u32) {
        let message = Outgoing::event("thing.made.eu", "Thing", &payload).id_text("a");
        self.running.publisher().publish(message).await.unwrap();
        self.broker.idle().await;
    }

    fn effects(&self) -> usize {
        self.effects.load(Ordering::SeqCst)
    }

    fn counts(&self) -> Counts {
        self.running.stats().total()
    }
}

/// S2: the store is asked about the first, and the copies are told from what it said.
#[tokio::test(start_paused = true)]
async fn copies_of_what_this_process_has_done_are_recognised_without_the_store() {
    let store = Shared::new();
    let house = House::with(Tracked::new(store.clone())).await;
    for _ in 0..100 {
        house.publish(1).await;
    }
    assert_eq!((house.effects(), house.counts().duplicates.total()), (1, 99));
    assert_eq!(store.claims(), 1);
    house.running.stop().await.unwrap();
}

/// S2: what another process has done is asked about once.
#[tokio::test(start_paused = true)]
async fn copies_of_what_another_process_has_done_are_asked_about_once() {
    let store = Shared::new();
    let first = House::with(Tracked::new(store.clone())).await;
    first.publish(1).await;
    let second = House::with(Tracked::new(store.clone())).await;
    for _ in 0..10 {
        second.publish(1).await;
    }
    assert_eq!((first.effects(), second.effects(), store.claims()), (1, 0, 2));
}

/// S33: another content under the same id is a conflict, before the time is over and after it.
#[tokio::test(start_paused = true)]
async fn another_content_is_asked_about() {
    let store = Shared::new();
    let house = House::with(Tracked::new(store.clone())).await;
    house.publish(1).await;
    house.publish(2).await;
    assert_eq!((house.effects(), house.counts().conflicts, store.claims()), (1, 1, 2));
    house.publish(1).await;
    assert_eq!((house.counts().duplicates.total(), store.claims()), (1, 2));
}

/// S9: only what is done is known. What failed is claimed again.
#[tokio::test(start_paused = true)]
async fn what_failed_runs_again() {
    let store = Shared::new();
    let house = House::that_fails(Tracked::new(store.clone()), 3).await;
    house.publish(1).await;
    assert_eq!((house.effects(), store.claims()), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn after_a_while_the_store_is_asked_again() {
    let store = Shared::new();
    let house = House::with(Tracked::new(store.clone()).recall(Duration::from_secs(10))).await;
    house.publish(1).await;
    tokio::time::advance(Duration::from_secs(9)).await;
    house.publish(1).await;
    assert_eq!(store.claims(), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    house.publish(1).await;
    house.publish(1).await;
    assert_eq!((house.effects(), store.claims()), (1, 2));
}

/// A copy that comes after the window is another message, so nothing is known for longer than a part of the window.
#[tokio::test(start_paused = true)]
async fn nothing_is_known_longer_than_the_store_remembers() {
    let window = Duration::from_secs(40);
    let mut store = Shared::new();
    store.store = MemoryStore::new().window(window);
    store.window = Some(Retention::window(window));
    let house = House::with(Tracked::new(store.clone()).recall(Duration::from_secs(3600))).await;
    house.publish(1).await;
    tokio::time::advance(Duration::from_secs(11)).await;
    house.publish(1).await;
    assert_eq!((house.effects(), store.claims()), (1, 2));
    tokio::time::advance(Duration::from_secs(41)).await;
    house.publish(1).await;
    assert_eq!((house.effects(), store.claims()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_store_of_this_process_and_one_that_does_not_tell_its_window_are_always_asked() {
    let of_this_process = Shared { shared: false, ..Shared::new() };
    let silent = Shared { window: None, ..Shared::new() };
    for store in [of_this_process, silent] {
        let house = House::with(Tracked::new(store.clone())).await;
        house.publish(1).await;
        house.publish(1).await;
        assert_eq!((house.effects(), store.claims()), (1, 2));
    }
    let store = Shared::new();
    let house = House::with(Tracked::new(store.clone()).recall(Duration::ZERO)).await;
    house.publish(1).await;
    house.publish(1).await;
    assert_eq!((house.effects(), store.claims()), (1, 2));
}
