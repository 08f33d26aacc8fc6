//! What single parts take. `cargo bench --package mmate-bench`, with a name for those that have it in theirs.

use std::hint::black_box;
use std::time::Duration;

use async_trait::async_trait;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mmate_core::topic::{TopicPattern, TopicTable};
use mmate_core::{
    Context, Envelope, HandlerError, InProcess, Json, MessageId, Middleware, Next, Outcome,
    Outgoing, Service, Subscription, SubscriptionBuilder,
};
use mmate_idempotency::protocol::{Claim, Command, Owner, Retention, Time, step};
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey};
use mmate_idempotency::{MemoryStore, Permit, Store, Tracked};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

#[derive(Serialize, Deserialize)]
struct Order {
    order_id: String,
    sku: String,
    quantity: u32,
    note: String,
}

fn order() -> Order {
    Order {
        order_id: "order-4711".to_owned(),
        sku: "sku-4711".to_owned(),
        quantity: 3,
        note: "x".repeat(60),
    }
}

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::new(text).expect("it is a pattern")
}

fn topics(c: &mut Criterion) {
    let topic = "order.created.eu-west";
    for text in ["order.created.eu-west", "order.*.eu-west", "order.*.eu-*", "#.eu-west"] {
        let pattern = pattern(text);
        c.bench_function(&format!("pattern {text}"), |b| {
            b.iter(|| pattern.matches(black_box(topic)));
        });
    }
    let mut table = TopicTable::new();
    for entity in 0..1_000 {
        table.insert(&pattern(&format!("entity-{entity}.*.eu-west")), entity);
    }
    c.bench_function("table of 1,000 patterns", |b| {
        b.iter(|| table.matches(black_box("entity-471.created.eu-west")).len());
    });
}

fn envelopes(c: &mut Criterion) {
    let id = MessageId::parse("order-4711").expect("it is an id");
    let envelope = Envelope::new(id, "OrderCreated", &order()).expect("it has JSON");
    let body = envelope.to_json();
    c.bench_function("envelope, written", |b| b.iter(|| black_box(&envelope).to_json()));
    c.bench_function("envelope, read", |b| {
        b.iter(|| Envelope::from_json(black_box(body.clone())).map(drop));
    });
    c.bench_function("envelope, read with its payload", |b| {
        b.iter(|| Envelope::from_json(body.clone()).map(|read| read.payload::<Order>().map(drop)));
    });
}

fn records(c: &mut Criterion) {
    let (now, retention) = (Time::from_millis(1_800_000_000_000), Retention::default());
    let (owner, by) = (Owner::generate(), "ship".into());
    let claim = Command::Claim {
        owner,
        by,
        fingerprint: None,
        lease: Duration::from_secs(60),
        trace: None,
    };
    c.bench_function("protocol, a claim", |b| {
        b.iter(|| step(None, black_box(claim.clone()), now, &retention));
    });
    let runtime = Runtime::new().expect("a runtime starts");
    let store = MemoryStore::new().capacity(100_000);
    let mut number = 0_u64;
    c.bench_function("memory store, claim and completion", |b| {
        b.iter(|| {
            number += 1;
            let key = RecordKey::new("ship", format!("{number:016}")).expect("it is a key");
            let request = ClaimRequest::new(key, Claimant::default(), Duration::from_secs(60));
            runtime.block_on(async {
                let Ok(Claim::Granted(grant)) = store.claim(&request).await else { return };
                let _ = store.complete(&Permit::new(&request, grant), None).await;
            });
        });
    });
}

async fn ship(Json(order): Json<Order>) -> Result<(), HandlerError> {
    black_box(order.quantity);
    Ok(())
}

/// What a chain of middleware costs by itself.
struct Nothing;

#[async_trait]
impl Middleware for Nothing {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        next.run(context).await
    }
}

/// From publishing to settling, in the broker in the process: the middleware chain and all around it.
fn services(c: &mut Criterion) {
    const MESSAGES: u64 = 100;
    let runtime = Runtime::new().expect("a runtime starts");
    let mut group = c.benchmark_group("service, 100 messages");
    group.throughput(Throughput::Elements(MESSAGES));
    type Guard = fn(SubscriptionBuilder) -> SubscriptionBuilder;
    let guards: [(&str, Guard); 3] = [
        ("plain", |subscription| subscription),
        ("five middlewares", |subscription| {
            (0..5).fold(subscription, |subscription, _| subscription.middleware(Nothing))
        }),
        ("Tracked in memory", |s| s.idempotent(Tracked::new(MemoryStore::new()))),
    ];
    for (name, guard) in guards {
        let broker = InProcess::new();
        let subscription = Subscription::per_service("ship", ["order.created.*"]);
        let subscription = guard(subscription).handler(ship);
        let service = Service::new("shipping").subscribe(subscription);
        let running = runtime.block_on(service.start(broker.clone())).expect("it starts");
        let publisher = running.publisher();
        group.bench_function(name, |b| {
            b.iter(|| {
                runtime.block_on(async {
                    let order = order();
                    let event = |_| Outgoing::event("order.created.eu", "OrderCreated", &order);
                    black_box(publisher.publish_all((0..MESSAGES).map(event)).await);
                    broker.idle().await;
                });
            });
        });
        runtime.block_on(running.stop()).expect("it stops");
    }
    group.finish();
}

criterion_group!(benches, topics, envelopes, records, services);
criterion_main!(benches);
