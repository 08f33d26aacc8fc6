//! Orders, and services that work on them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mmate_core::{
    Counts, InProcess, Outgoing, RetryPolicy, Running, Service, Subscription, SubscriptionBuilder,
};
use mmate_idempotency::{Key, Locked, Store};
use serde_json::json;

/// A lock by the order, which all who have it share.
pub(crate) fn by_order(store: impl Store) -> Locked {
    Locked::by(store, Key::json_pointer("/order/id")).scope("orders")
}

/// A subscription of that name to all that happens to orders.
pub(crate) fn orders(name: &str) -> SubscriptionBuilder {
    Subscription::per_service(name, ["order.*.*"])
        .retry(RetryPolicy::fixed(Duration::from_millis(20)))
}

pub(crate) async fn start(
    broker: &InProcess,
    service: &str,
    subscription: Subscription,
) -> Running {
    Service::new(service).subscribe(subscription).start(broker.clone()).await.unwrap()
}

pub(crate) async fn publish(running: &Running, id: &str, order: &str) {
    let event = Outgoing::event("order.paid.eu", "OrderPaid", &json!({ "order": { "id": order } }));
    running.publisher().publish(event.id_text(id)).await.unwrap();
}

/// How many are inside of a handler, and how many were at most.
#[derive(Clone, Default)]
pub(crate) struct Inside(Arc<(AtomicUsize, AtomicUsize)>);

impl Inside {
    pub(crate) fn enter(&self) -> impl Drop + Send + use<> {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
        Entered(self.clone())
    }

    pub(crate) fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

struct Entered(Inside);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What happened, in its order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until the counts are as wanted, and returns them. At every look they are conserved (S47).
pub(crate) async fn counts_when(running: &Running, wanted: impl Fn(&Counts) -> bool) -> Counts {
    let began = Instant::now();
    loop {
        let counts = running.stats().total();
        assert!(counts.is_conserved(), "{counts:?}");
        if wanted(&counts) {
            return counts;
        }
        assert!(began.elapsed() < LIMIT, "it did not come to it: {counts:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
