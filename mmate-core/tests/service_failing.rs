//! A service whose broker fails it, for good or for long.

use std::time::Duration;

use async_trait::async_trait;
use mmate_core::transport::{
    Browser, Connection, Consumer, Delivery, Publication, PublishError, QueueMode, QueuePlan,
    Transport, TransportError, TransportErrorKind,
};
use mmate_core::{HandlerError, InProcess, Outgoing, QueueKind, Service, Subscription};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// How a consumer fails.
#[derive(Clone, Copy)]
enum Fault {
    /// It ends after so many deliveries, and cannot be brought back.
    EndsAfter(usize),
    /// The broker does not answer when it is stopped.
    NeverStops,
}

/// The broker inside the process, with consumers that fail.
struct Failing(InProcess, Fault);

#[async_trait]
impl Transport for Failing {
    async fn connect(&self, service: &str) -> Result<Box<dyn Connection>, TransportError> {
        Ok(Box::new(FailingConnection(self.0.connect(service).await?, self.1)))
    }

    fn describe(&self) -> String {
        "failing".to_owned()
    }
}

struct FailingConnection(Box<dyn Connection>, Fault);

#[async_trait]
impl Connection for FailingConnection {
    async fn declare(&self, queue: &QueuePlan) -> Result<(), TransportError> {
        self.0.declare(queue).await
    }

    async fn consume(&self, q: &QueuePlan, room: u16) -> Result<Box<dyn Consumer>, TransportError> {
        Ok(Box::new(FailingConsumer(self.0.consume(q, room).await?, self.1)))
    }

    async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        self.0.publish(publication).await
    }

    async fn browse(&self, queue: &str, page: u16) -> Result<Box<dyn Browser>, TransportError> {
        self.0.browse(queue, page).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

struct FailingConsumer(Box<dyn Consumer>, Fault);

#[async_trait]
impl Consumer for FailingConsumer {
    async fn next(&mut self) -> Option<Result<Delivery, TransportError>> {
        if let Fault::EndsAfter(left) = &mut self.1 {
            if *left == 0 {
                let gone = TransportErrorKind::NotFound;
                return Some(Err(TransportError::new(gone, "consume the queue \"s.q\"")));
            }
            let next = self.0.next().await;
            *left -= 1;
            return next;
        }
        self.0.next().await
    }

    async fn stop(&mut self) {
        match self.1 {
            Fault::EndsAfter(_) => self.0.stop().await,
            Fault::NeverStops => std::future::pending().await,
        }
    }
}

async fn slow() -> Result<(), HandlerError> {
    sleep(SECOND).await;
    Ok(())
}

fn service() -> Service {
    Service::new("s").subscribe(Subscription::per_service("q", ["number.#"]).handler(slow))
}

fn number() -> Outgoing {
    Outgoing::event("number.made", "Number", &1)
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_cannot_be_brought_back_ends_the_service_after_what_runs() {
    let broker = InProcess::new();
    let failing = Failing(broker.clone(), Fault::EndsAfter(1));
    let mut running = service().start(failing).await.unwrap();
    let stats = running.stats().clone();
    running.publisher().publish(number()).await.unwrap();
    running.publisher().publish(number()).await.unwrap();
    running.failed().await;
    assert_eq!(stats.total().succeeded, 1);
    let error = running.stop().await.expect_err("stopping tells why it failed");
    assert_eq!(error.to_string(), "failed to consume the queue \"s.q\": not found");
    let state = broker.queue("s.q").unwrap();
    assert_eq!((state.ready, state.unacked, state.consumers), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_by_itself_when_its_service_fails() {
    let run = service().run(Failing(InProcess::new(), Fault::EndsAfter(0)));
    let error = tokio::time::timeout(SECOND, run.into_future()).await.expect("it ends");
    assert!(error.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_although_the_broker_does_not_answer() {
    let broker = InProcess::new();
    let service = service().drain_timeout(10 * SECOND);
    let running = service.start(Failing(broker.clone(), Fault::NeverStops)).await.unwrap();
    running.publisher().publish(number()).await.unwrap();
    sleep(SECOND / 2).await;
    let began = Instant::now();
    tokio::time::timeout(60 * SECOND, running.stop()).await.expect("the stop ends").unwrap();
    assert!(began.elapsed() >= 10 * SECOND, "it was given the time of the drain");
    let state = broker.queue("s.q").unwrap();
    assert_eq!((state.ready, state.unacked, state.consumers), (0, 0, 0));
}

#[tokio::test]
async fn a_service_that_cannot_start_says_why_and_leaves_no_consumer_behind() {
    let broker = InProcess::new();
    let theirs = broker.connect("them").await.unwrap();
    let mut plan = QueuePlan::new("s.r", QueueMode::Shared);
    plan.kind = QueueKind::Classic;
    theirs.declare(&plan).await.unwrap();

    let more = Subscription::per_service("r", ["number.#"]).handler(slow);
    let error = service().subscribe(more).start(broker.clone()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("failed to declare the queue \"s.r\": it exists with other"),
        "{text}"
    );
    assert!(text.contains("passive()"), "it says what to do: {text}");
    assert_eq!(broker.queue("s.q").unwrap().consumers, 0);

    let passive = Subscription::shared("nobody-made-this").passive().handler(slow);
    let error = Service::new("s").subscribe(passive).start(broker.clone()).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to declare the queue \"nobody-made-this\": not found");
}
