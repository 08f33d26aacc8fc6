//! How often memory is asked for, per message. Counts, not times: they are the same on every machine, and a change that makes
//! them grow is seen in the test that it fails.
//!
//! The allocator counts for the whole process, so all of them are one test.

use std::time::Duration;

use mmate_core::topic::{TopicPattern, TopicTable};
use mmate_core::{
    Envelope, HandlerError, InProcess, Json, MessageId, Outgoing, Service, Subscription,
};
use mmate_idempotency::protocol::Claim;
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey};
use mmate_idempotency::{MemoryStore, Permit, Store, Tracked};
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const MESSAGES: u32 = 1_000;
/// By how much a count may grow.
const LEEWAY: f64 = 1.05;

#[derive(Serialize, Deserialize)]
struct Order {
    order_id: String,
    cents: u64,
}

fn order() -> Order {
    Order { order_id: "order-4711".to_owned(), cents: 129_900 }
}

/// Allocations for each of so many messages. What is run once before does not count.
async fn each(mut run: impl AsyncFnMut(u32) -> Result<()>) -> Result<f64> {
    run(0).await?;
    let before = ALLOCATOR.stats().allocations;
    for number in 1..=MESSAGES {
        run(number).await?;
    }
    let count = u32::try_from(ALLOCATOR.stats().allocations - before)?;
    Ok(f64::from(count) / f64::from(MESSAGES))
}

async fn topic() -> Result<f64> {
    let mut table = TopicTable::new();
    for number in 0..1_000 {
        table.insert(&TopicPattern::new(format!("entity-{number}.*.eu-west"))?, number);
    }
    each(async |_| {
        let found = table.matches("entity-7.created.eu-west");
        (found == [&7]).then_some(()).ok_or_else(|| "not found".into())
    })
    .await
}

async fn envelope() -> Result<f64> {
    let body = Envelope::new(MessageId::parse("order-4711")?, "OrderCreated", &order())?.to_json();
    each(async |_| {
        let order: Order = Envelope::from_json(body.clone())?.payload()?;
        (order.cents > 0).then_some(()).ok_or_else(|| "no order".into())
    })
    .await
}

async fn records() -> Result<f64> {
    let store = MemoryStore::new().capacity(10);
    each(async |number| {
        let key = RecordKey::new("shipping", format!("{number:08}"))?;
        let request = ClaimRequest::new(key, Claimant::default(), Duration::from_secs(60));
        let Claim::Granted(grant) = store.claim(&request).await? else {
            return Err("refused".into());
        };
        store.complete(&Permit::new(&request, grant), None).await?;
        Ok(())
    })
    .await
}

async fn ship(Json(order): Json<Order>) -> Result<(), HandlerError> {
    std::hint::black_box(order.order_id);
    Ok(())
}

/// Publishing, routing, handling and settling, in the broker in the process.
async fn service(tracked: Option<Tracked>) -> Result<f64> {
    let broker = InProcess::new();
    let subscription = Subscription::per_service("ship", ["order.created.*"]);
    let subscription = match tracked {
        Some(tracked) => subscription.idempotent(tracked).handler(ship),
        None => subscription.handler(ship),
    };
    let running = Service::new("shipping").subscribe(subscription).start(broker.clone()).await?;
    let publisher = running.publisher();
    let count = each(async |_| {
        publisher.publish(Outgoing::event("order.created.eu", "OrderCreated", &order())).await?;
        broker.idle().await;
        Ok(())
    })
    .await?;
    running.stop().await?;
    Ok(count)
}

#[tokio::test(flavor = "current_thread")]
async fn a_message_takes_no_more_allocations_than_it_did() -> Result<()> {
    let tracked = || Tracked::new(MemoryStore::new());
    let counts = [
        ("a topic among 1,000 patterns", topic().await?, 3.0),
        ("an envelope and its payload", envelope().await?, 3.0),
        ("a claim and a completion in memory", records().await?, 6.0),
        ("a message through a service", service(None).await?, 106.5),
        (
            "a message through a service with Tracked in memory",
            service(Some(tracked())).await?,
            115.9,
        ),
    ];
    for (what, count, _) in &counts {
        println!("{what}: {count:.2}");
    }
    for (what, count, was) in counts {
        assert!(
            count <= was * LEEWAY,
            "{what} takes {count:.2} allocations, and took {was:.2}. If that is worth it, note the new count here."
        );
    }
    Ok(())
}
