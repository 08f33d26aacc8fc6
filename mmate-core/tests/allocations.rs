//! How many allocations a message costs.
//!
//! They are counted, not timed: the count is the same on every machine, so that a change that makes it grow shows.

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mmate_core::{
    HandlerError, InProcess, Json, Outgoing, Publisher, Service, State, Subscription,
};
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Serialize, Deserialize)]
struct Order {
    number: u64,
    customer: String,
}

async fn handle(
    Json(order): Json<Order>,
    State(handled): State<Arc<AtomicU64>>,
) -> Result<(), HandlerError> {
    handled.fetch_add(u64::from(!order.customer.is_empty()), Ordering::Relaxed);
    Ok(())
}

const MESSAGES: u32 = 2_000;
/// From the broker in the process to the settlement, the payload's own text among them.
const PER_MESSAGE: f64 = 44.1;

#[tokio::test]
async fn a_message_costs_no_more_allocations_than_it_did() {
    let broker = InProcess::new();
    let handled = Arc::new(AtomicU64::new(0));
    let service = || {
        Service::new("counted")
            .state(Arc::clone(&handled))
            .subscribe(Subscription::per_service("orders", ["order.placed"]).handler(handle))
    };
    // Declares the queue.
    service().start(broker.clone()).await.unwrap().stop().await.unwrap();
    let publisher = Publisher::connect(&broker, "publisher").await.unwrap();
    for number in 0..MESSAGES {
        let order = Order { number: number.into(), customer: "somebody".to_owned() };
        publisher.publish(Outgoing::event("order.placed", "OrderPlaced", &order)).await.unwrap();
    }
    let region = Region::new(ALLOCATOR);
    let running = service().start(broker.clone()).await.unwrap();
    broker.idle().await;
    let counted = region.change().allocations;
    running.stop().await.unwrap();
    assert_eq!(handled.load(Ordering::Relaxed), u64::from(MESSAGES));
    let each = f64::from(u32::try_from(counted).unwrap()) / f64::from(MESSAGES);
    println!("{each:.2} allocations a message");
    assert!(
        each <= PER_MESSAGE * 1.05,
        "{each:.2} allocations a message, and it was {PER_MESSAGE}: find out why, or say here that it has to be"
    );
    assert!(
        each >= PER_MESSAGE * 0.9,
        "it is {each:.2} now: lower the number that must not be exceeded"
    );
}
