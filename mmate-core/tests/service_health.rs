//! How a service says that it is well.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use async_trait::async_trait;
use mmate_core::health::Status;
use mmate_core::{
    Context, HandlerError, InProcess, Middleware, Next, Outcome, Publisher, Running, Service,
    Subscription, SubscriptionBuilder,
};

async fn nothing() -> Result<(), HandlerError> {
    Ok(())
}

fn subscription() -> SubscriptionBuilder {
    Subscription::per_service("ship", ["order.#"])
}

async fn start(broker: &InProcess, subscription: SubscriptionBuilder) -> Running {
    let service = Service::new("shop").subscribe(subscription.handler(nothing));
    service.start(broker.clone()).await.unwrap()
}

#[tokio::test]
async fn a_service_is_up_down_while_its_broker_is_away_and_up_again() {
    let broker = InProcess::new();
    let running = start(&broker, subscription()).await;
    let health = running.health().clone();
    assert_eq!(health.report().to_string(), "shop is up");
    assert!(health.report().subscriptions.contains_key("ship"));
    broker.pause();
    let report = health.report();
    assert_eq!(report.status(), Status::down("connection broker: the broker is paused"));
    broker.resume();
    assert!(health.report().status().is_up());
    running.stop().await.unwrap();
    assert!(health.report().status().is_down(), "a service that was stopped does nothing");
}

#[tokio::test]
async fn a_publisher_without_a_service_has_a_health_too() {
    let broker = InProcess::new();
    let publisher = Publisher::connect(&broker, "storefront").await.unwrap();
    let health = publisher.health();
    assert_eq!(health.report().to_string(), "storefront is up");
    broker.pause();
    let down = Status::down("connection broker: the broker is paused");
    assert_eq!(health.report().status(), down);
    broker.resume();
    assert!(health.report().status().is_up());
    publisher.close().await;
    assert!(health.report().status().is_down(), "it publishes nothing any more");
}

/// Always in trouble.
struct Troubled;

#[async_trait]
impl Middleware for Troubled {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        next.run(context).await
    }

    fn status(&self) -> Status {
        Status::degraded("it has seen better days")
    }
}

#[tokio::test]
async fn a_middleware_in_trouble_shows_in_its_subscription() {
    let running = start(&InProcess::new(), subscription().middleware(Troubled)).await;
    let report = running.health().report();
    assert_eq!(report.subscriptions["ship"], Status::degraded("it has seen better days"));
    assert!(!report.status().is_down(), "a degraded service still works");
    running.stop().await.unwrap();
}
