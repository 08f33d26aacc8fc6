//! Middleware around handlers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::any::TypeId;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mmate_core::{
    BoxError, Context, Duplicate, DuplicateReason, FromContext, HandlerError, Idempotency,
    InProcess, Middleware, Next, Outcome, Outgoing, Panicked, Publisher, Requirement, RetryPolicy,
    Running, Service, ServiceError, Subscription, SubscriptionBuilder, TimedOut,
};

type Log = Arc<Mutex<Vec<String>>>;

fn said(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

/// Says when it is entered and left, started and stopped.
struct Says(&'static str, Log);

impl Says {
    fn say(&self, what: &str) {
        self.1.lock().unwrap().push(format!("{} {what}", self.0));
    }
}

#[async_trait]
impl Middleware for Says {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        self.say("in");
        let result = next.run(context).await;
        self.say(match &result {
            Ok(_) => "out",
            Err(error) if error.source().is::<Panicked>() => "out by panic",
            Err(error) if error.source().is::<TimedOut>() => "out by timeout",
            Err(_) => "out by error",
        });
        result
    }

    async fn start(&self) -> Result<(), BoxError> {
        self.say("starts");
        Ok(())
    }

    async fn stop(&self) {
        self.say("stops");
    }
}

impl Idempotency for Says {}

fn orders() -> SubscriptionBuilder {
    Subscription::per_service("q", ["order.#"]).retry(RetryPolicy::fixed(Duration::from_secs(1)))
}

async fn start(broker: &InProcess, subscription: Subscription) -> Running {
    Service::new("s").subscribe(subscription).start(broker.clone()).await.unwrap()
}

async fn publish(running: &Running) {
    running.publisher().publish(Outgoing::event("order.created", "Order", &1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn middleware_is_entered_from_the_outside_in_and_idempotency_is_the_innermost() {
    let (broker, log) = (InProcess::new(), Log::default());
    let handler = {
        let log = Arc::clone(&log);
        move || {
            log.lock().unwrap().push("handler".to_owned());
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let says = |name| Says(name, Arc::clone(&log));
    let subscription = orders()
        .idempotent(says("once"))
        .middleware(says("outer"))
        .middleware(says("inner"))
        .handler(handler);
    let running = start(&broker, subscription).await;
    assert_eq!(said(&log), ["outer starts", "inner starts", "once starts"]);
    publish(&running).await;
    broker.idle().await;
    let way = ["outer in", "inner in", "once in", "handler", "once out", "inner out", "outer out"];
    assert_eq!(said(&log), way);
    running.stop().await.unwrap();
    assert_eq!(said(&log), ["outer stops", "inner stops", "once stops"]);
}

/// S11: what a strategy must release, it learns of.
#[tokio::test(start_paused = true)]
async fn middleware_sees_a_panic_and_a_timeout_as_errors() {
    let (broker, log) = (InProcess::new(), Log::default());
    let handler = |mmate_core::Attempt(attempt): mmate_core::Attempt| async move {
        match attempt {
            1 => panic!("this is part of the test"),
            2 => std::future::pending().await,
            3 => Err(HandlerError::retryable("an error")),
            _ => Ok(()),
        }
    };
    let subscription = orders()
        .idempotent(Says("once", Arc::clone(&log)))
        .timeout(Duration::from_secs(5))
        .handler(handler);
    let running = start(&broker, subscription).await;
    said(&log);
    publish(&running).await;
    broker.idle().await;
    let ends: Vec<_> = said(&log).into_iter().filter(|line| line != "once in").collect();
    assert_eq!(ends, ["once out by panic", "once out by timeout", "once out by error", "once out"]);
    assert_eq!(running.stats().total().retried, 3);
}

struct Panics;

#[async_trait]
impl Middleware for Panics {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        assert!(context.attempt() > 1, "this is part of the test");
        next.run(context).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_middleware_is_a_failed_attempt_too() {
    let broker = InProcess::new();
    let handler = || async { Ok::<(), HandlerError>(()) };
    let running = start(&broker, orders().middleware(Panics).handler(handler)).await;
    publish(&running).await;
    broker.idle().await;
    let counts = running.stats().total();
    assert_eq!((counts.retried, counts.succeeded), (1, 1));
}

/// Answers without asking.
struct Answers(Outcome);

#[async_trait]
impl Middleware for Answers {
    async fn handle(&self, _: &mut Context, _: Next<'_>) -> Result<Outcome, HandlerError> {
        Ok(self.0.clone())
    }
}

/// S2
#[tokio::test(start_paused = true)]
async fn a_middleware_that_answers_itself_spares_the_handler_and_the_decoding() {
    let broker = InProcess::new();
    let handler = |mmate_core::Json(()): mmate_core::Json<()>| async {
        panic!("the handler is not entered");
        #[expect(unreachable_code, reason = "it gives the handler its type")]
        Ok::<(), HandlerError>(())
    };
    let duplicate = Duplicate::new(DuplicateReason::Republished, None);
    let answers = Answers(Outcome::Duplicate(duplicate));
    let running = start(&broker, orders().middleware(answers).handler(handler)).await;
    // A number is no (), so decoding it would dead-letter it.
    publish(&running).await;
    broker.idle().await;
    let counts = running.stats().total();
    assert_eq!((counts.duplicates.republished, counts.dead_lettered, counts.fetched), (1, 0, 1));
    assert!(broker.dead_letters("s.q").is_empty());
}

struct Tenant(u32);

impl FromContext for Tenant {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        let id = context.extension::<u32>().copied();
        id.map(Self).ok_or_else(|| HandlerError::permanent("no tenant"))
    }

    fn requirement() -> Option<Requirement> {
        Some(Requirement::new::<Self>("Tenant", "add .middleware(Tenants)"))
    }
}

struct Tenants;

#[async_trait]
impl Middleware for Tenants {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        context.insert(7_u32);
        next.run(context).await
    }

    fn provides(&self) -> Vec<TypeId> {
        vec![TypeId::of::<Tenant>()]
    }
}

#[tokio::test(start_paused = true)]
async fn an_extractor_that_needs_a_middleware_is_told_at_the_start_and_finds_what_it_left() {
    async fn wants(Tenant(id): Tenant) -> Result<(), HandlerError> {
        if id == 7 { Ok(()) } else { Err(HandlerError::permanent("another tenant")) }
    }
    let service = Service::new("s").subscribe(orders().handler(wants));
    let error = service.start(InProcess::new()).await.unwrap_err().to_string();
    let told = "the handler of the subscription \"q\" takes Tenant: add .middleware(Tenants)";
    assert!(error.ends_with(told), "{error}");

    let broker = InProcess::new();
    let running = start(&broker, orders().middleware(Tenants).handler(wants)).await;
    publish(&running).await;
    broker.idle().await;
    assert_eq!(running.stats().total().succeeded, 1);
}

struct Unprotected;

#[async_trait]
impl Middleware for Unprotected {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        context.mark_unprotected();
        next.run(context).await
    }
}

/// S43
#[tokio::test(start_paused = true)]
async fn a_success_without_protection_is_counted_as_such() {
    let broker = InProcess::new();
    let handler = || async { Ok::<(), HandlerError>(()) };
    let running = start(&broker, orders().middleware(Unprotected).handler(handler)).await;
    publish(&running).await;
    broker.idle().await;
    let counts = running.stats().total();
    assert_eq!((counts.unprotected, counts.succeeded), (1, 0));
    assert!(counts.is_conserved());
}

struct NoStore;

#[async_trait]
impl Middleware for NoStore {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        next.run(context).await
    }

    async fn start(&self) -> Result<(), BoxError> {
        Err("no such table: processed_messages".into())
    }
}

#[tokio::test]
async fn a_middleware_that_cannot_start_stops_the_service_before_it_touches_a_queue() {
    let (broker, log) = (InProcess::new(), Log::default());
    let handler = || async { Ok::<(), HandlerError>(()) };
    let subscription =
        orders().middleware(Says("first", Arc::clone(&log))).middleware(NoStore).handler(handler);
    let failed = Service::new("s").subscribe(subscription).start(broker.clone()).await;
    let error = failed.expect_err("the service does not start");
    assert!(matches!(error, ServiceError::Middleware { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "failed to start the middleware of the subscription \"q\": \
         no such table: processed_messages"
    );
    assert!(broker.queues().is_empty());
    assert_eq!(said(&log), ["first starts", "first stops"], "what was started is stopped");
}

/// Publishes when the service is ready, or says that it is not.
struct Greets(Result<&'static str, &'static str>, Log);

#[async_trait]
impl Middleware for Greets {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        next.run(context).await
    }

    async fn ready(&self, publisher: &Publisher) -> Result<(), BoxError> {
        let topic = self.0?;
        assert_eq!(publisher.source(), "s");
        publisher.publish(Outgoing::event(topic, "Order", &1)).await?;
        Ok(())
    }

    async fn stop(&self) {
        self.1.lock().unwrap().push("stops".to_owned());
    }
}

#[tokio::test]
async fn a_middleware_that_is_told_that_all_is_ready_finds_the_queues_of_its_neighbours() {
    let (broker, log) = (InProcess::new(), Log::default());
    let handler = || async { Ok::<(), HandlerError>(()) };
    let greets = Greets(Ok("neighbour.greeted"), Arc::clone(&log));
    let neighbour = Subscription::per_service("neighbour", ["neighbour.*"]).handler(handler);
    let service = Service::new("s").subscribe(orders().middleware(greets).handler(handler));
    let running = service.subscribe(neighbour).start(broker.clone()).await.unwrap();
    broker.idle().await;
    assert_eq!(running.stats().total().succeeded, 1);
    running.stop().await.unwrap();
    assert_eq!(said(&log), ["stops"]);
}

#[tokio::test]
async fn a_middleware_that_is_not_ready_keeps_the_service_from_starting() {
    let (broker, log) = (InProcess::new(), Log::default());
    let greets = Greets(Err("not yet"), Arc::clone(&log));
    let handler = || async { Ok::<(), HandlerError>(()) };
    let subscription = orders().middleware(greets).handler(handler);
    let failed = Service::new("s").subscribe(subscription).start(broker.clone()).await;
    let error = failed.expect_err("the service does not start").to_string();
    assert!(error.ends_with("subscription \"q\": not yet"), "{error}");
    assert_eq!(said(&log), ["stops"]);
}
