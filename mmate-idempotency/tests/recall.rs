//! Copies of what this process has lately done.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/counted.rs"]
mod counted;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{
    Counts, HandlerError, InProcess, Outgoing, RetryPolicy, Running, Service, Subscription,
};
use mmate_idempotency::protocol::Retention;
use mmate_idempotency::{MemoryStore, Tracked};

use self::counted::Counted;

/// In memory, but others may use it too, as it says.
fn shared() -> Counted<MemoryStore> {
    let mut store = Counted::new(MemoryStore::new());
    store.promises.shared = true;
    store.remembers = Some(Retention::default());
    store
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
    let store = shared();
    let house = House::with(Tracked::new(store.clone())).await;
    for _ in 0..100 {
        house.publish(1).await;
    }
    assert_eq!((house.effects(), house.counts().duplicates.total()), (1, 99));
    assert_eq!(store.calls(["claim"]), 1);
    house.running.stop().await.unwrap();
}

/// S2: what another process has done is asked about once.
#[tokio::test(start_paused = true)]
async fn copies_of_what_another_process_has_done_are_asked_about_once() {
    let store = shared();
    let first = House::with(Tracked::new(store.clone())).await;
    first.publish(1).await;
    let second = House::with(Tracked::new(store.clone())).await;
    for _ in 0..10 {
        second.publish(1).await;
    }
    assert_eq!((first.effects(), second.effects(), store.calls(["claim"])), (1, 0, 2));
}

/// S33: another content under the same id is a conflict, before the time is over and after it.
#[tokio::test(start_paused = true)]
async fn another_content_is_asked_about() {
    let store = shared();
    let house = House::with(Tracked::new(store.clone())).await;
    house.publish(1).await;
    house.publish(2).await;
    assert_eq!((house.effects(), house.counts().conflicts, store.calls(["claim"])), (1, 1, 2));
    house.publish(1).await;
    assert_eq!((house.counts().duplicates.total(), store.calls(["claim"])), (1, 2));
}

/// S9: only what is done is known. What failed is claimed again.
#[tokio::test(start_paused = true)]
async fn what_failed_runs_again() {
    let store = shared();
    let house = House::that_fails(Tracked::new(store.clone()), 3).await;
    house.publish(1).await;
    assert_eq!((house.effects(), store.calls(["claim"])), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn after_a_while_the_store_is_asked_again() {
    let store = shared();
    let house = House::with(Tracked::new(store.clone()).recall(Duration::from_secs(10))).await;
    house.publish(1).await;
    tokio::time::advance(Duration::from_secs(9)).await;
    house.publish(1).await;
    assert_eq!(store.calls(["claim"]), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    house.publish(1).await;
    house.publish(1).await;
    assert_eq!((house.effects(), store.calls(["claim"])), (1, 2));
}

/// A copy that comes after the window is another message, so nothing is known for longer than a part of the window.
#[tokio::test(start_paused = true)]
async fn nothing_is_known_longer_than_the_store_remembers() {
    let window = Duration::from_secs(40);
    let mut store = shared();
    store.store = MemoryStore::new().window(window);
    store.remembers = Some(Retention::window(window));
    let house = House::with(Tracked::new(store.clone()).recall(Duration::from_secs(3600))).await;
    house.publish(1).await;
    tokio::time::advance(Duration::from_secs(11)).await;
    house.publish(1).await;
    assert_eq!((house.effects(), store.calls(["claim"])), (1, 2));
    tokio::time::advance(Duration::from_secs(41)).await;
    house.publish(1).await;
    assert_eq!((house.effects(), store.calls(["claim"])), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_store_of_this_process_and_one_that_does_not_tell_its_window_are_always_asked() {
    let of_this_process = Counted::new(MemoryStore::new());
    let mut silent = shared();
    silent.remembers = None;
    for store in [of_this_process, silent] {
        let house = House::with(Tracked::new(store.clone())).await;
        house.publish(1).await;
        house.publish(1).await;
        assert_eq!((house.effects(), store.calls(["claim"])), (1, 2));
    }
    let store = shared();
    let house = House::with(Tracked::new(store.clone()).recall(Duration::ZERO)).await;
    house.publish(1).await;
    house.publish(1).await;
    assert_eq!((house.effects(), store.calls(["claim"])), (1, 2));
}
