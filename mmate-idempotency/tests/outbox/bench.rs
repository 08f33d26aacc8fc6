//! A broker with a queue in which messages stay, and an outbox.

use std::time::Duration;

use mmate_core::{Envelope, HandlerError, InProcess, Outgoing, Publisher, Service, Subscription};
use mmate_idempotency::{Outbox, OutboxMessage};
use tokio::task::JoinHandle;

use crate::database::{Place, TestDatabase};

pub(crate) const SINK: &str = "sink";

/// Nobody consumes from the sink, so what arrives there can be read.
pub(crate) struct Bench<DB: TestDatabase> {
    pub(crate) broker: InProcess,
    pub(crate) place: Place<DB>,
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrived {
    pub(crate) id: String,
    pub(crate) payload: String,
}

impl<DB: TestDatabase> Bench<DB> {
    pub(crate) async fn new() -> Self {
        let bench = Self { broker: InProcess::new(), place: DB::place().await };
        bench.outbox().migrate().await.unwrap();
        make_queue(&bench.broker, SINK).await;
        bench
    }

    /// One that looks often, and takes over soon.
    pub(crate) fn outbox(&self) -> Outbox<DB> {
        Outbox::new(self.place.pool.clone())
            .table(&self.place.table)
            .unwrap()
            .sweep_every(Duration::from_millis(20))
            .lease(Duration::from_secs(20))
    }

    pub(crate) async fn publisher(&self) -> Publisher {
        Publisher::connect(&self.broker, "relay").await.unwrap()
    }

    /// Sends until it is aborted, which is as good as a crash.
    pub(crate) async fn send_with(&self, outbox: Outbox<DB>) -> JoinHandle<()> {
        let publisher = self.publisher().await;
        tokio::spawn(async move { outbox.run(publisher, std::future::pending()).await })
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        arrived(&self.broker, SINK)
    }

    pub(crate) fn payloads(&self) -> Vec<String> {
        self.arrived().into_iter().map(|arrived| arrived.payload).collect()
    }

    pub(crate) async fn rows(&self) -> i64 {
        DB::number(&self.place, "SELECT count(*) FROM {table}").await
    }

    pub(crate) async fn claimed_rows(&self) -> i64 {
        DB::number(&self.place, "SELECT count(*) FROM {table} WHERE claim IS NOT NULL").await
    }

    /// Waits until nothing is to be sent any more.
    pub(crate) async fn emptied(&self) {
        until("the outbox is empty", async || self.rows().await == 0).await;
    }
}

pub(crate) fn arrived(broker: &InProcess, queue: &str) -> Vec<Arrived> {
    let read = |message: mmate_core::Message| {
        let envelope = Envelope::from_json(message.body.clone()).unwrap();
        let id = message.properties.message_id.unwrap();
        assert_eq!(id, envelope.id.as_str());
        Arrived { id, payload: envelope.payload().unwrap() }
    };
    broker.messages(queue).into_iter().map(read).collect()
}

/// A queue that outlives the service that made it.
pub(crate) async fn make_queue(broker: &InProcess, name: &str) {
    let handler = async || Ok::<(), HandlerError>(());
    let subscription = Subscription::shared(name).handler(handler);
    let service = Service::new("maker").subscribe(subscription);
    service.start(broker.clone()).await.unwrap().stop().await.unwrap();
}

/// A message into the sink.
pub(crate) fn note(payload: &str) -> Outgoing {
    Outgoing::to_queue(SINK, "Note", payload)
}

pub(crate) fn keyed(key: &str, payload: &str) -> OutboxMessage {
    OutboxMessage::new(note(payload)).key(key)
}

/// Waits for a state, and fails if it does not come.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.unwrap_or_else(|_| {
        panic!("waited in vain until {what}");
    });
}
