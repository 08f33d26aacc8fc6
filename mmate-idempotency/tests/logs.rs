//! What stands in the log.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use mmate_core::{HandlerError, Idempotency, InProcess, Outgoing, Running, Service, Subscription};
use mmate_idempotency::protocol::{Claim, Held, Retention};
use mmate_idempotency::store::{ClaimRequest, Promises, StoreErrorKind};
use mmate_idempotency::{MemoryStore, Permit, Store, StoreError, Tracked};
use tokio::time::sleep;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// Runs a case whose log is kept, with time that passes when nothing else happens.
fn logged<F: Future<Output = ()>>(case: impl FnOnce(Log) -> F) {
    logged_in(true, case);
}

/// The same, with time that passes as it does or with one that does not.
fn logged_in<F: Future<Output = ()>>(paused: bool, case: impl FnOnce(Log) -> F) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(paused)
            .build()
            .unwrap()
            .block_on(case(log));
    });
}

async fn start(broker: &InProcess, store: impl Store) -> Running {
    let subscription = Subscription::per_service("q", ["thing.#"])
        .idempotent(Tracked::new(store))
        .handler(async || Ok::<(), HandlerError>(()));
    Service::new("s").subscribe(subscription).start(broker.clone()).await.unwrap()
}

async fn publish(running: &Running, id: &str, trace: &str) {
    let message = Outgoing::event("thing.made.eu", "Thing", "payload").id_text(id);
    let message = message.correlation_id("conversation-7".parse().unwrap());
    let message = message.header("traceparent", trace);
    running.publisher().publish(message).await.unwrap();
}

/// A place in a trace.
const FIRST: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// S48
#[test]
fn a_duplicate_is_logged_with_why_since_when_and_the_trace_of_the_first() {
    logged(async |log| {
        let broker = InProcess::new();
        let running = start(&broker, MemoryStore::new()).await;
        for trace in [FIRST, &FIRST.replace("0af", "fff")] {
            publish(&running, "order-4711", trace).await;
        }
        broker.idle().await;
        let lines = log.lines();
        let line = lines.iter().find(|line| line.contains("a duplicate is acknowledged")).unwrap();
        for part in
            ["DEBUG", "order-4711", "Thing", "conversation-7", "republished", "done_at", FIRST]
        {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        running.stop().await.unwrap();
    });
}

/// S39: one failure is not worth a line, and many in a row are worth one.
#[test]
fn purges_that_fail_are_counted_and_warned_of_once_until_one_works() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || logged(warned_of_purges));
    let counters = recorder.snapshotter().snapshot().into_vec();
    let (.., failures) = counters
        .into_iter()
        .find(|(key, ..)| key.key().name() == "mmate_purge_failures_total")
        .unwrap();
    assert_eq!(failures, DebugValue::Counter(20));
}

async fn warned_of_purges(log: Log) {
    let purges = Purges::default();
    let running = start(&InProcess::new(), purges.clone()).await;
    let told = || -> Vec<String> {
        let lines = log.lines();
        let told = lines.iter().filter(|line| line.contains("WARN") || line.contains("INFO"));
        told.filter(|line| line.contains("old records")).cloned().collect()
    };
    purges.until(2).await;
    assert!(told().is_empty(), "{:?}", told());
    purges.until(20).await;
    let [pile_up] = &told()[..] else { panic!("one line, not {:?}", told()) };
    for part in ["WARN", "pile up", "store=\"purges\"", "permission denied", "failures=3"] {
        assert!(pile_up.contains(part), "{part} is not in {pile_up}");
    }
    purges.work.store(true, Ordering::SeqCst);
    purges.until(25).await;
    let lines = told();
    assert!(lines.len() == 2 && lines[1].contains("purged again"), "{lines:?}");
    running.stop().await.unwrap();
}

/// A store whose purges fail.
#[derive(Clone, Default)]
struct Purges {
    store: MemoryStore,
    count: Arc<AtomicU64>,
    work: Arc<AtomicBool>,
}

impl Purges {
    /// Waits until so many were tried and told of.
    async fn until(&self, count: u64) {
        while self.count.load(Ordering::SeqCst) < count {
            sleep(Duration::from_secs(1)).await;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[async_trait]
impl Store for Purges {
    fn name(&self) -> &'static str {
        "purges"
    }

    fn promises(&self) -> Promises {
        self.store.promises()
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
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

    async fn purge(&self, _: u32) -> Result<u64, StoreError> {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.work.load(Ordering::SeqCst) {
            return Ok(0);
        }
        let why = "permission denied";
        Err(StoreError::new(StoreErrorKind::Permanent, "remove old records", why))
    }
}

/// A store that is down.
struct Down;

fn down<T>() -> Result<T, StoreError> {
    Err(StoreError::new(StoreErrorKind::Unavailable, "reach the store", "connection refused"))
}

#[async_trait]
impl Store for Down {
    fn name(&self) -> &'static str {
        "down"
    }

    fn promises(&self) -> Promises {
        Promises { durable: true, shared: true, complete: true }
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn claim(&self, _: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        down()
    }

    async fn heartbeat(&self, _: &Permit, _: Duration) -> Result<Held, StoreError> {
        down()
    }

    async fn complete(&self, _: &Permit, _: Option<Bytes>) -> Result<Held, StoreError> {
        down()
    }

    async fn release(&self, _: &Permit) -> Result<Held, StoreError> {
        down()
    }

    async fn purge(&self, _: u32) -> Result<u64, StoreError> {
        down()
    }
}

/// S42
#[test]
fn a_store_that_is_down_is_logged_at_most_once_a_second() {
    logged(async |log| {
        let broker = InProcess::new();
        let running = start(&broker, Down).await;
        for n in 0..50 {
            publish(&running, &format!("{n}"), FIRST).await;
        }
        sleep(Duration::from_secs(50)).await;
        let lines = log.lines();
        let told: Vec<_> = lines.iter().filter(|line| line.contains("WARN")).collect();
        assert!(told.len() <= 51, "{} lines in 50 seconds", told.len());
        assert!(told.len() >= 10);
        assert!(told.iter().all(|line| line.contains("connection refused")), "{told:?}");
    });
}

/// Starts a service with a strategy, and returns the warnings.
async fn warnings(log: &Log, strategy: impl Idempotency) -> Vec<String> {
    let before = log.lines().len();
    let subscription = Subscription::per_service("q", ["thing.#"])
        .idempotent(strategy)
        .handler(async || Ok::<(), HandlerError>(()));
    let service = Service::new("s").subscribe(subscription);
    service.start(InProcess::new()).await.unwrap().stop().await.unwrap();
    log.lines().into_iter().skip(before).filter(|line| line.contains("WARN")).collect()
}

const HOUR: Duration = Duration::from_secs(3600);
/// By the defaults: 511 s of delays, and ten attempts of two minutes.
const RETRIES: Duration = Duration::from_secs(511 + 10 * 120);

fn assert_told(warnings: &[String]) {
    let [told] = warnings else { panic!("one warning, not {warnings:?}") };
    for part in ["recognised for 3600s", "88111s later", "1711s", "86400s", "subscription=\"q\""] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

/// S38
#[test]
fn a_window_that_ends_before_the_last_copy_may_come_is_told_with_both_numbers() {
    logged(async |log| {
        let tracked = |window| Tracked::new(MemoryStore::new().window(window));
        assert_told(&warnings(&log, tracked(HOUR)).await);
        let none: [String; 0] = [];
        assert_eq!(warnings(&log, Tracked::new(MemoryStore::new())).await, none);
        let unlimited = MemoryStore::new().retention(Retention::unlimited());
        assert_eq!(warnings(&log, Tracked::new(unlimited)).await, none);
        // Exactly as long as it takes, and a second less.
        let never = |window| tracked(window).replayed_within(Duration::ZERO);
        assert_eq!(warnings(&log, never(RETRIES)).await, none);
        assert_eq!(warnings(&log, never(RETRIES - Duration::from_secs(1))).await.len(), 1);
        // A store that cannot tell.
        assert_eq!(warnings(&log, Tracked::new(Down)).await, none);
    });
}

/// S38
#[cfg(feature = "sqlite")]
#[test]
fn a_window_that_is_too_short_is_told_of_sqlite_and_of_transactions_too() {
    logged_in(false, async |log| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("records.db");
        let store = mmate_idempotency::SqliteStore::open(&file).await.unwrap().window(HOUR);
        assert_told(&warnings(&log, Tracked::new(store)).await);
        let pool =
            sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        let transactional = mmate_idempotency::Transactional::new(pool);
        assert_told(&warnings(&log, transactional.clone().window(HOUR)).await);
        assert!(warnings(&log, transactional).await.is_empty());
    });
}
