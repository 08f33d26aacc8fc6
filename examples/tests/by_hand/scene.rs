//! A shop that charges cards, and a broker that misbehaves on demand.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mmate_core::{
    HandlerError, InProcess, Outgoing, RetryPolicy, Running, Service, Subscription,
    SubscriptionBuilder,
};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// The effects: charges of cards, as the bank has them. Nothing keeps a second one out.
#[derive(Clone, Default)]
pub(crate) struct Bank {
    charges: Arc<Mutex<Vec<String>>>,
    arrived: Arc<(Mutex<usize>, Notify)>,
}

impl Bank {
    pub(crate) async fn charge(&self, id: &str) {
        self.charges.lock().unwrap().push(id.to_owned());
    }

    /// The same, but slow: it takes until a second caller is there too, or two seconds.
    pub(crate) async fn charge_slowly(&self, id: &str) {
        *self.arrived.0.lock().unwrap() += 1;
        self.arrived.1.notify_waiters();
        let second = async {
            loop {
                let notified = self.arrived.1.notified();
                if *self.arrived.0.lock().unwrap() >= 2 {
                    return;
                }
                notified.await;
            }
        };
        // Whether it came or not, the card is charged.
        let _ = timeout(Duration::from_secs(2), second).await;
        self.charge(id).await;
    }

    pub(crate) fn charges(&self) -> Vec<String> {
        self.charges.lock().unwrap().clone()
    }
}

/// Fails once.
#[derive(Clone)]
pub(crate) struct FailsOnce(Arc<Mutex<bool>>);

impl FailsOnce {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(true)))
    }

    pub(crate) fn check(&self) -> Result<(), HandlerError> {
        match std::mem::take(&mut *self.0.lock().unwrap()) {
            true => Err(HandlerError::retryable("the network, at first")),
            false => Ok(()),
        }
    }
}

pub(crate) fn payments() -> SubscriptionBuilder {
    Subscription::per_service("charge", ["order.paid.*"])
        .retry(RetryPolicy::fixed(Duration::from_millis(20)))
}

pub(crate) async fn start(broker: &InProcess, subscription: Subscription) -> Running {
    Service::new("shop").subscribe(subscription).start(broker.clone()).await.unwrap()
}

pub(crate) fn order() -> Outgoing {
    Outgoing::event("order.paid.eu", "OrderPaid", "a book").id_text("order-7")
}

/// One message, that is shown as often as it takes, to one instance.
pub(crate) async fn one_order(subscription: Subscription) {
    let broker = InProcess::new();
    let running = start(&broker, subscription).await;
    running.publisher().publish(order()).await.unwrap();
    broker.idle().await;
    running.stop().await.unwrap();
}

/// One message that its publisher sends twice, to these instances.
pub(crate) async fn one_order_twice(subscriptions: impl IntoIterator<Item = Subscription>) {
    let broker = InProcess::new();
    let mut running = Vec::new();
    for subscription in subscriptions {
        running.push(start(&broker, subscription).await);
    }
    broker.duplicate_next(1);
    running[0].publisher().publish(order()).await.unwrap();
    broker.idle().await;
    for one in running {
        one.stop().await.unwrap();
    }
}

/// A process of the service. It can be killed: nothing of it runs any more then, and what it has not
/// acknowledged is shown to others.
pub(crate) struct Process {
    runtime: tokio::runtime::Runtime,
    running: Running,
}

impl Process {
    pub(crate) async fn start(broker: &InProcess, subscription: Subscription) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (runtime, broker) = (runtime.unwrap(), broker.clone());
        let starting = runtime.spawn(async move { start(&broker, subscription).await });
        Self { running: starting.await.unwrap(), runtime }
    }

    pub(crate) async fn publish(&self, message: Outgoing) {
        self.running.publisher().publish(message).await.unwrap();
    }

    pub(crate) fn kill(self) {
        self.runtime.shutdown_background();
        drop(self.running);
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(60), "it did not come to this: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A database of the shop, with a table of charges for who has the effect in it.
pub(crate) struct Database {
    pub(crate) pool: SqlitePool,
    _folder: TempDir,
}

impl Database {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shop.db");
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
        for sql in
            ["CREATE TABLE charges (id TEXT)", "CREATE TABLE processed (id TEXT PRIMARY KEY)"]
        {
            sqlx::query(sql).execute(&pool).await.unwrap();
        }
        Self { pool, _folder: folder }
    }

    pub(crate) async fn charges(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM charges").fetch_one(&self.pool).await.unwrap()
    }
}
