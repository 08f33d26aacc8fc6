//! Redeliveries of what a service is handling when its connection is lost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{
    Handler, HandlerError, InProcess, Json, MessageId, OrderKey, Outgoing, Running, Service,
    Subscription, SubscriptionBuilder,
};
use tokio::sync::Semaphore;
use tokio::time::sleep;

fn numbers() -> SubscriptionBuilder {
    Subscription::per_service("q", ["number.#"])
}

fn number(n: u64) -> Outgoing {
    Outgoing::event("number.made.eu", "Number", &n)
}

async fn start(broker: &InProcess, subscription: Subscription) -> Running {
    Service::new("s").subscribe(subscription).start(broker.clone()).await.unwrap()
}

/// S5: with one handler at a time nobody looks at a redelivery before the handling has ended.
#[tokio::test(start_paused = true)]
async fn what_was_handled_to_its_end_during_a_cut_does_not_run_again() {
    let broker = InProcess::new();
    let (runs, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
        move || {
            let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await?.forget();
                Ok::<(), HandlerError>(())
            }
        }
    };
    let running = start(&broker, numbers().concurrency(1).handler(handler)).await;
    running.publisher().publish(number(0)).await.unwrap();
    eventually(|| runs.load(Ordering::SeqCst) == 1).await;
    broker.cut();
    gate.add_permits(1);
    broker.idle().await;
    let counts = running.stats().total();
    assert_eq!((counts.fetched, counts.succeeded, counts.adopted), (1, 1, 1), "{counts:?}");
    assert_eq!(runs.load(Ordering::SeqCst), 1);

    // It is remembered for that one redelivery: the same message again is another one.
    running.publisher().publish(number(0).id(id("twice"))).await.unwrap();
    running.publisher().publish(number(0).id(id("twice"))).await.unwrap();
    gate.add_permits(2);
    broker.idle().await;
    assert_eq!(running.stats().total().succeeded, 3, "two publications are two messages");
    running.stop().await.unwrap();
}

/// S5, S33: only a redelivery of the very same message is adopted.
#[tokio::test(start_paused = true)]
async fn another_message_with_the_same_id_is_not_adopted() {
    let broker = InProcess::new();
    let (heard, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
    let handler = noting(&heard, &gate);
    let running = start(&broker, numbers().concurrency(8).handler(handler)).await;
    for n in [1, 2] {
        running.publisher().publish(number(n).id(id("same"))).await.unwrap();
    }
    eventually(|| heard.lock().unwrap().len() == 2).await;
    broker.cut();
    eventually(|| running.stats().total().adopted == 2).await;
    gate.add_permits(10);
    broker.idle().await;
    assert_eq!(*heard.lock().unwrap(), [1, 2]);
    assert_eq!(running.stats().total().succeeded, 2);
    running.stop().await.unwrap();
}

/// S5: in a lane the redelivery waits behind the handling, and is acknowledged in its turn.
#[tokio::test(start_paused = true)]
async fn what_is_handled_in_its_lane_during_a_cut_does_not_run_again() {
    let broker = InProcess::new();
    let (heard, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
    let handler = noting(&heard, &gate);
    let ordered = numbers().ordered_by(OrderKey::topic()).handler(handler);
    let running = start(&broker, ordered).await;
    for n in 0..3 {
        running.publisher().publish(number(n)).await.unwrap();
    }
    eventually(|| !heard.lock().unwrap().is_empty()).await;
    broker.cut();
    gate.add_permits(10);
    broker.idle().await;
    assert_eq!(*heard.lock().unwrap(), [0, 1, 2], "in order, and once each");
    let counts = running.stats().total();
    assert_eq!((counts.fetched, counts.succeeded, counts.adopted), (3, 3, 1), "{counts:?}");
    running.stop().await.unwrap();
}

/// A handler that notes what it is given, and ends when the gate lets it.
fn noting(
    heard: &Arc<Mutex<Vec<u64>>>,
    gate: &Arc<Semaphore>,
) -> impl Handler<(Json<u64>,)> + use<> {
    let (heard, gate) = (Arc::clone(heard), Arc::clone(gate));
    move |Json(n): Json<u64>| {
        heard.lock().unwrap().push(n);
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await?.forget();
            Ok::<(), HandlerError>(())
        }
    }
}

fn id(text: &str) -> MessageId {
    MessageId::parse(text).unwrap()
}

async fn eventually(mut ask: impl FnMut() -> bool) {
    let asking = async {
        while !ask() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap();
}
