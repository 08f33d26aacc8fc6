//! S23: settings that cannot work together, or with the broker, are refused before anything starts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use async_trait::async_trait;
use mmate_core::transport::Limits;
use mmate_core::{
    Context, HandlerError, InProcess, Middleware, Next, Outcome, RetryPolicy, Service,
    Subscription, SubscriptionBuilder, Surroundings,
};

const MINUTE: Duration = Duration::from_secs(60);

async fn nothing() -> Result<(), HandlerError> {
    Ok(())
}

fn subscription() -> SubscriptionBuilder {
    Subscription::per_service("ship", ["order.#"])
}

/// A broker with RabbitMQ's limits.
fn broker() -> InProcess {
    let limits = Limits::default()
        .delivery_timeout(30 * MINUTE)
        .delivery_limit(20)
        .longest_delay(24 * 60 * MINUTE);
    InProcess::new().with_limits(limits)
}

/// What the start says, if it refuses.
async fn start(subscription: SubscriptionBuilder) -> Result<(), String> {
    let broker = broker();
    let service = Service::new("shop").subscribe(subscription.handler(nothing));
    match service.start(broker.clone()).await {
        Ok(running) => {
            running.stop().await.unwrap();
            Ok(())
        }
        Err(error) => {
            assert!(broker.queues().is_empty(), "nothing is declared for what cannot work");
            Err(error.to_string().replace("the service is not configured correctly: ", ""))
        }
    }
}

/// S23
#[tokio::test]
async fn the_defaults_work_with_the_limits_of_rabbitmq() {
    assert_eq!(start(subscription()).await, Ok(()));
}

/// S23
#[tokio::test]
async fn a_handler_that_may_outlast_the_brokers_patience_is_refused_with_both_times() {
    let told = start(subscription().timeout(45 * MINUTE)).await.unwrap_err();
    assert_eq!(
        told,
        "a handler of the subscription \"ship\" may run for 2700s, and the broker takes a delivery \
         back after 1800s (RabbitMQ's consumer_timeout): lower it with .timeout(…), or raise the \
         broker's limit and tell the transport of it"
    );
    assert!(
        start(subscription().timeout(30 * MINUTE)).await.is_err(),
        "the limit itself is too long"
    );
    assert_eq!(start(subscription().timeout(29 * MINUTE)).await, Ok(()));
}

/// S23
#[tokio::test]
async fn a_retry_that_waits_longer_than_the_broker_can_delay_is_refused_with_both_times() {
    let days = RetryPolicy::exponential(MINUTE, 48 * 60 * MINUTE);
    let told = start(subscription().retry(days)).await.unwrap_err();
    assert_eq!(
        told,
        "the retry policy of the subscription \"ship\" waits up to 172800s, and the broker delays a \
         message for 86400s at most: shorten the policy's longest delay"
    );
    let never = RetryPolicy::fixed(48 * 60 * MINUTE).max_attempts(1);
    assert_eq!(start(subscription().retry(never)).await, Ok(()), "it never waits");
}

/// Holds each message for a time before it is handled.
struct Holds(Duration);

#[async_trait]
impl Middleware for Holds {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        next.run(context).await
    }

    fn check(&self, surroundings: &Surroundings) -> Result<(), String> {
        surroundings.may_hold(&format!("a message rests for {:?}", self.0), self.0)
    }
}

/// S23
#[tokio::test]
async fn a_middleware_says_why_it_cannot_work_with_the_rest() {
    let holding = |time| subscription().timeout(10 * MINUTE).middleware(Holds(time));
    assert_eq!(
        start(holding(25 * MINUTE)).await.unwrap_err(),
        "the subscription \"ship\" cannot work with its middleware: a message rests for 1500s, then \
         a handler may run for 600s, and the broker takes a delivery back after 1800s: shorten one \
         of the two, or raise the broker's limit"
    );
    assert_eq!(start(holding(15 * MINUTE)).await, Ok(()));
}
