//! F47: a database whose disk is full.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mariadb;
mod postgres;
mod sqlite;

use std::collections::HashSet;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{
    Counts, Handler, HandlerError, Idempotency, InProcess, Meta, Outgoing, RetryPolicy, Running,
    Service, Subscription,
};
use tokio::time::{sleep, timeout};

/// A disk that somebody else fills, and clears.
trait Disk {
    async fn fill(&mut self);
    async fn free(&mut self);
}

const MESSAGES: u64 = 205;
const CONCURRENCY: usize = 8;
const LIMIT: Duration = Duration::from_secs(60);

/// F47: while the disk is full nothing is acknowledged that is not recorded, and no message is given
/// up; when there is room again, all are handled. Some have come before, if the disk can take that.
async fn fails_closed_and_goes_on<H: Handler<Args>, Args: 'static>(
    disk: &mut impl Disk,
    before: u64,
    strategy: impl Idempotency,
    handler: H,
) {
    let subscription = Subscription::per_service("q", ["thing.#"])
        .concurrency(CONCURRENCY)
        .retry(RetryPolicy::fixed(Duration::from_millis(200)).max_attempts(1_000))
        .idempotent(strategy)
        .handler(handler);
    let service = Service::new("s").subscribe(subscription);
    let running = service.start(InProcess::new()).await.unwrap();
    let publish = async |number| {
        let message = Outgoing::event("thing.made.eu", "Thing", "payload");
        running.publisher().publish(message.id_text(format!("{number}"))).await.unwrap();
    };
    for number in 0..before {
        publish(number).await;
    }
    counts_when(&running, |counts| counts.succeeded == before).await;
    disk.fill().await;
    for number in before..MESSAGES {
        publish(number).await;
    }
    let full = ["database or disk is full", "No space left on device", "is full"];
    let health = || running.health().report().to_string();
    let is_told = until(|| full.iter().any(|text| health().contains(text))).await;
    assert!(is_told, "{}", health());
    let counts = running.stats().total();
    assert!(counts.succeeded < MESSAGES && counts.dead_lettered == 0, "{counts:?}");
    disk.free().await;
    let counts = counts_when(&running, |counts| {
        counts.succeeded + counts.dead_lettered + counts.duplicates.total() == MESSAGES
    });
    let counts = counts.await;
    assert_eq!((counts.succeeded, counts.dead_lettered), (MESSAGES, 0), "{counts:?}");
    running.stop().await.unwrap();
}

/// The counts when they are so.
async fn counts_when(running: &Running, are_so: impl Fn(&Counts) -> bool) -> Counts {
    let waited = until(|| are_so(&running.stats().total())).await;
    let counts = running.stats().total();
    assert!(waited, "it does not come to that: {counts:?}");
    counts
}

/// Waits for that, and tells whether it came.
async fn until(is_so: impl Fn() -> bool) -> bool {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, waiting).await.is_ok()
}

/// A handler whose effects are counted outside of the database.
#[derive(Clone, Default)]
struct Effects(Arc<Mutex<Vec<String>>>);

impl Effects {
    fn handler(&self) -> impl Fn(Meta) -> Ready<Result<(), HandlerError>> + use<> {
        let effects = self.clone();
        move |meta: Meta| {
            effects.0.lock().unwrap().extend(meta.id.map(|id| id.to_string()));
            ready(Ok(()))
        }
    }

    /// S9: what was being handled when the disk became full cannot be recorded as done, and runs again.
    fn assert_one_each_but_of_those_under_way(&self) {
        let effects = self.0.lock().unwrap();
        let distinct: HashSet<_> = effects.iter().collect();
        assert_eq!(distinct.len(), MESSAGES as usize);
        assert!(effects.len() <= distinct.len() + CONCURRENCY, "{} effects", effects.len());
    }
}
