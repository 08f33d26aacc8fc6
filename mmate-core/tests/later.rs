//! Messages published for later, on the broker in the process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mmate_core::message::InvalidMessage;
use mmate_core::transport::Limits;
use mmate_core::{
    HandlerError, InProcess, Outgoing, PublishError, Publisher, Running, Service, Subscription,
};
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

fn reminder(topic: &str) -> Outgoing {
    Outgoing::event(topic, "Reminder", &1).delay(HOUR)
}

/// Counts what it is shown.
async fn start(broker: &InProcess, runs: &Arc<AtomicU64>) -> Running {
    let runs = Arc::clone(runs);
    let handler = move || {
        runs.fetch_add(1, Ordering::SeqCst);
        async { Ok::<(), HandlerError>(()) }
    };
    let counting = Subscription::per_service("q", ["order.#"]).handler(handler);
    Service::new("shop").subscribe(counting).start(broker.clone()).await.unwrap()
}

/// Only they would be worked on.
#[tokio::test(start_paused = true)]
async fn being_idle_waits_for_what_comes_to_a_consumer_and_for_nothing_else() {
    let (broker, runs) = (InProcess::new(), Arc::default());
    let running = start(&broker, &runs).await;
    let begin = Instant::now();
    running.publisher().publish(reminder("invoice.due")).await.unwrap();
    broker.idle().await;
    assert!(begin.elapsed() < HOUR, "nobody takes it");

    running.publisher().publish(reminder("order.unpaid")).await.unwrap();
    let to_queue = Outgoing::to_queue("shop.q", "Reminder", &1).delay(2 * HOUR);
    running.publisher().publish(to_queue).await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    broker.idle().await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert!(begin.elapsed() >= 2 * HOUR && begin.elapsed() < 3 * HOUR, "{:?}", begin.elapsed());
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_duplicated_on_demand_comes_twice_at_its_time() {
    let (broker, runs) = (InProcess::new(), Arc::default());
    let running = start(&broker, &runs).await;
    broker.duplicate_next(2);
    running.publisher().publish(reminder("order.unpaid")).await.unwrap();
    let to_queue = Outgoing::to_queue("shop.q", "Reminder", &1).delay(HOUR);
    running.publisher().publish(to_queue).await.unwrap();
    broker.idle().await;
    assert_eq!(runs.load(Ordering::SeqCst), 4);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_delay_above_the_brokers_longest_is_refused_with_both_times() {
    let day = 24 * HOUR;
    let broker = InProcess::new().with_limits(Limits::default().longest_delay(day));
    let publisher = Publisher::connect(&broker, "shop").await.unwrap();
    publisher.publish(reminder("order.unpaid").delay(day)).await.unwrap();
    let error = publisher.publish(reminder("order.unpaid").delay(2 * day)).await.unwrap_err();
    let PublishError::Invalid(InvalidMessage::Delay { delay, limit }) = &error else {
        panic!("it is too long, and not {error:?}")
    };
    assert_eq!((*delay, *limit), (2 * day, day));
    assert!(error.to_string().contains("172800s"), "{error}");

    let both = reminder("order.unpaid").expires_after(HOUR);
    let error = publisher.publish(both).await.unwrap_err();
    assert!(matches!(error, PublishError::Invalid(InvalidMessage::DelayedAndExpiring)), "{error}");
}

/// No delay is none: it can be unroutable, and expire.
#[tokio::test]
async fn a_delay_of_nothing_is_none() {
    let publisher = Publisher::connect(&InProcess::new(), "shop").await.unwrap();
    let prompt = reminder("order.unpaid").delay(Duration::ZERO).expires_after(HOUR);
    let error = publisher.publish(prompt).await.unwrap_err();
    assert!(matches!(error, PublishError::Unroutable { .. }), "{error:?}");
}
