//! The same on RabbitMQ.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_amqp::Amqp;
use mmate_core::{HandlerError, Json, Meta, Outgoing, Publisher, Running, Service, Subscription};
use mmate_idempotency::{Outbox, OutboxMessage, Transactional, Tx};
use mmate_test_support::{amqp_url, unique};
use sqlx::Sqlite;

use crate::bench::{Arrived, until};
use crate::database::{Place, TestDatabase};

/// A service that writes down what arrives at a queue.
async fn sink(queue: &str) -> (Running, Arc<Mutex<Vec<Arrived>>>) {
    let list = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let list = Arc::clone(&list);
        move |Json(payload): Json<String>, meta: Meta| {
            let id = meta.id.unwrap().to_string();
            list.lock().unwrap().push(Arrived { id, payload });
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let subscription = Subscription::shared(queue).concurrency(1).handler(handler);
    let service = Service::new(unique("sink")).subscribe(subscription);
    (service.start(Amqp::new(amqp_url())).await.unwrap(), list)
}

fn outbox(place: &Place<Sqlite>) -> Outbox<Sqlite> {
    let outbox = Outbox::new(place.pool.clone()).table(&place.table).unwrap();
    outbox.sweep_every(Duration::from_millis(50))
}

/// S24, S28
#[tokio::test(flavor = "multi_thread")]
async fn what_handlers_publish_arrives_once_and_what_they_roll_back_never() {
    const MESSAGES: usize = 200;
    let place = Sqlite::place().await;
    let queue = unique("notes");
    let (sink, arrived) = sink(&queue).await;
    let entity = unique("thing");
    let handler = {
        let queue = queue.clone();
        move |Json(number): Json<usize>, mut tx: Tx<Sqlite>, outbox: Outbox<Sqlite>| {
            let queue = queue.clone();
            async move {
                let note = Outgoing::to_queue(&queue, "Note", &format!("{number}"));
                outbox.publish(&mut tx, note).await?;
                match number % 4 {
                    0 => Err(HandlerError::permanent("as the test wants it")),
                    _ => Ok(()),
                }
            }
        }
    };
    let subscription = Subscription::per_service("q", [format!("{entity}.#")])
        .middleware(outbox(&place))
        .idempotent(Transactional::new(place.pool.clone()))
        .handler(handler);
    let service = Service::new(unique("s")).subscribe(subscription);
    let running = service.start(Amqp::new(amqp_url())).await.unwrap();
    let things = (0..MESSAGES).flat_map(|number| {
        let thing = || Outgoing::event(format!("{entity}.made"), "Thing", &number);
        // Each of them twice.
        [thing().id_text(format!("{number}")), thing().id_text(format!("{number}"))]
    });
    for published in running.publisher().publish_all(things).await {
        published.unwrap();
    }
    let settled = || {
        let counts = running.stats().total();
        counts.succeeded + counts.duplicates.total() + counts.dead_lettered
    };
    until("all are settled", async || settled() == 2 * MESSAGES as u64).await;
    running.stop().await.unwrap();
    until("all have arrived", async || arrived.lock().unwrap().len() >= MESSAGES / 4 * 3).await;
    sink.stop().await.unwrap();
    let mut payloads: Vec<usize> =
        arrived.lock().unwrap().iter().map(|a| a.payload.parse().unwrap()).collect();
    payloads.sort_unstable();
    assert_eq!(payloads, (0..MESSAGES).filter(|n| n % 4 != 0).collect::<Vec<_>>());
    assert_eq!(Sqlite::number(&place, "SELECT count(*) FROM {table}").await, 0);
}

/// S29
#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_a_key_and_its_ids_outlive_senders_that_are_killed() {
    const MESSAGES: usize = 300;
    let place = Sqlite::place().await;
    let queue = unique("notes");
    let (sink, arrived) = sink(&queue).await;
    let outbox = outbox(&place).lease(Duration::from_secs(1)).batch(20);
    outbox.migrate().await.unwrap();
    let mut ids = Vec::new();
    let mut tx = place.pool.begin().await.unwrap();
    for number in 0..MESSAGES {
        let note = Outgoing::to_queue(&queue, "Note", &format!("{number}"));
        let message = OutboxMessage::new(note).key(format!("{}", number % 3));
        ids.push(outbox.publish_in(&mut tx, message).await.unwrap().to_string());
    }
    tx.commit().await.unwrap();
    let left = async || Sqlite::number(&place, "SELECT count(*) FROM {table}").await;
    let mut kills = 0;
    while left().await > 0 {
        let publisher = Publisher::connect(&Amqp::new(amqp_url()), "relay").await.unwrap();
        let life = Duration::from_millis(if kills < 5 { 60 } else { 5_000 });
        let running = outbox.run(publisher.clone(), async {
            until("it is empty", async || left().await == 0).await;
        });
        kills += usize::from(tokio::time::timeout(life, running).await.is_err());
        publisher.close().await;
    }
    let all = || {
        let arrived = arrived.lock().unwrap();
        ids.iter().all(|id| arrived.iter().any(|arrived| arrived.id == *id))
    };
    until("all have arrived", async || all()).await;
    sink.stop().await.unwrap();
    assert!(kills > 0);
    let mut highest = [-1; 3];
    let mut seen = std::collections::HashSet::new();
    for Arrived { id, payload } in &*arrived.lock().unwrap() {
        let number: i64 = payload.parse().unwrap();
        assert_eq!(ids[usize::try_from(number).unwrap()], *id);
        if seen.insert(number) {
            let before =
                std::mem::replace(&mut highest[usize::try_from(number % 3).unwrap()], number);
            assert!(before < number, "{number} came after {before}");
        }
    }
}
