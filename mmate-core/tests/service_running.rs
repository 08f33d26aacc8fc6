//! A service that runs: how much at once, how it stops, what it counts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{
    Attempt, Chaos, HandlerError, InProcess, Json, Outcome, Outgoing, Permanent, Publisher,
    RetryPolicy, Running, Service, Subscription, SubscriptionBuilder,
};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn numbers() -> SubscriptionBuilder {
    Subscription::per_service("q", ["number.#"]).retry(RetryPolicy::fixed(SECOND))
}

fn number(n: u64) -> Outgoing {
    Outgoing::event("number.made.eu", "Number", &n)
}

async fn start(broker: &InProcess, subscription: Subscription) -> Running {
    Service::new("s").subscribe(subscription).start(broker.clone()).await.unwrap()
}

async fn publish(running: &Running, numbers: std::ops::Range<u64>) {
    for n in numbers {
        running.publisher().publish(number(n)).await.unwrap();
    }
}

/// Counts itself as long as it lives.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// S8: what was fetched and not begun is nobody's when the process dies.
#[tokio::test(start_paused = true)]
async fn only_as_many_messages_are_begun_as_are_handled_at_once() {
    let broker = InProcess::new();
    let begun = Arc::new(AtomicUsize::new(0));
    let handler = {
        let begun = Arc::clone(&begun);
        move || {
            begun.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<Result<(), HandlerError>>()
        }
    };
    let four = numbers().prefetch(NonZeroU16::new(200).unwrap()).concurrency(4).handler(handler);
    let running = start(&broker, four).await;
    publish(&running, 0..200).await;
    sleep(SECOND).await;
    assert_eq!(broker.queue("s.q").unwrap().unacked, 200);
    assert_eq!(begun.load(Ordering::SeqCst), 4);
    let counts = running.stats().total();
    assert_eq!((counts.fetched, counts.in_flight), (4, 4));

    drop(running);
    let all = Arc::new(Mutex::new(HashSet::new()));
    let handler = {
        let all = Arc::clone(&all);
        move |Json(n): Json<u64>| {
            all.lock().unwrap().insert(n);
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let _second = start(&broker, numbers().handler(handler)).await;
    sleep(SECOND).await;
    broker.idle().await;
    assert_eq!(all.lock().unwrap().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn no_more_handlers_run_at_once_than_the_concurrency_says() {
    let broker = InProcess::new();
    let (alive, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (alive, most) = (Arc::clone(&alive), Arc::clone(&most));
        move |Json(n): Json<u64>| {
            let (alive, most) = (Arc::clone(&alive), Arc::clone(&most));
            async move {
                let _alive = Alive::new(&alive);
                most.fetch_max(alive.load(Ordering::SeqCst), Ordering::SeqCst);
                sleep(Duration::from_millis(n % 7)).await;
                Ok::<(), HandlerError>(())
            }
        }
    };
    let running = start(&broker, numbers().concurrency(3).handler(handler)).await;
    publish(&running, 0..100).await;
    broker.idle().await;
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(running.stats().total().succeeded, 100);
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_of_one_handles_in_the_order_of_the_queue() {
    let broker = InProcess::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let seen = Arc::clone(&seen);
        move |Json(n): Json<u64>| {
            let seen = Arc::clone(&seen);
            async move {
                sleep(Duration::from_millis(100 - n)).await;
                seen.lock().unwrap().push(n);
                Ok::<(), HandlerError>(())
            }
        }
    };
    let running = start(&broker, numbers().concurrency(1).handler(handler)).await;
    publish(&running, 0..100).await;
    broker.idle().await;
    assert!(seen.lock().unwrap().iter().copied().eq(0..100));
}

/// S50: what is finished is acknowledged, and nothing before or after it.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_never_covers_a_message_that_is_not_finished() {
    let broker = InProcess::new();
    let handler = |Json(n): Json<u64>| async move {
        if n % 3 == 0 {
            std::future::pending::<()>().await;
        }
        Ok::<(), HandlerError>(())
    };
    let running = start(&broker, numbers().concurrency(100).handler(handler)).await;
    publish(&running, 0..100).await;
    sleep(SECOND).await;
    broker.cut();
    drop(running);
    sleep(SECOND).await;
    let left: Vec<u64> = broker
        .messages("s.q")
        .into_iter()
        .map(|m| mmate_core::Envelope::from_json(m.body).unwrap().payload().unwrap())
        .collect();
    assert!(left.iter().copied().eq((0..100).filter(|n| n % 3 == 0)), "{left:?}");
}

/// S11: what a handler holds is let go when its time is over.
#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_is_dropped_and_tried_again() {
    let broker = InProcess::new();
    let alive = Arc::new(AtomicUsize::new(0));
    let handler = {
        let alive = Arc::clone(&alive);
        move |Attempt(attempt): Attempt| {
            let alive = Arc::clone(&alive);
            async move {
                let _alive = Alive::new(&alive);
                if attempt == 1 {
                    std::future::pending::<()>().await;
                }
                Ok::<(), HandlerError>(())
            }
        }
    };
    let running = start(&broker, numbers().timeout(5 * SECOND).handler(handler)).await;
    let began = Instant::now();
    publish(&running, 0..1).await;
    sleep(4 * SECOND).await;
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    broker.idle().await;
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert_eq!(began.elapsed().as_secs(), 6, "five seconds, and one until the next attempt");
    let counts = running.stats().total();
    assert_eq!((counts.retried, counts.succeeded), (1, 1));
}

/// S49
#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_runs_and_no_longer_than_the_drain() {
    let broker = InProcess::new();
    let alive = Arc::new(AtomicUsize::new(0));
    let handler = {
        let alive = Arc::clone(&alive);
        move |Json(seconds): Json<u64>| {
            let alive = Arc::clone(&alive);
            async move {
                let _alive = Alive::new(&alive);
                sleep(seconds as u32 * SECOND).await;
                Ok::<(), HandlerError>(())
            }
        }
    };
    let service = Service::new("s")
        .drain_timeout(10 * SECOND)
        .subscribe(numbers().concurrency(2).handler(handler));
    let running = service.start(broker.clone()).await.unwrap();
    publish(&running, 5..6).await;
    publish(&running, 50..53).await;
    sleep(SECOND).await;
    let stats = running.stats().clone();
    let began = Instant::now();
    running.stop().await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(alive.load(Ordering::SeqCst), 0, "what still ran was dropped");
    assert_eq!(broker.queue("s.q").unwrap().ready, 3);
    let counts = stats.total();
    assert_eq!((counts.fetched, counts.succeeded, counts.in_flight), (2, 1, 0));
    assert!(counts.is_conserved());
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_with_its_signal_after_a_drain() {
    let broker = InProcess::new();
    let publisher = Publisher::connect(&broker, "test").await.unwrap();
    let handler = || async {
        sleep(5 * SECOND).await;
        Ok::<(), HandlerError>(())
    };
    let (signal, signalled) = oneshot::channel::<()>();
    let service = Service::new("s").subscribe(numbers().handler(handler));
    let run = service.run(broker.clone()).with_graceful_shutdown(signalled);
    let run = tokio::spawn(run.into_future());
    sleep(SECOND).await;
    publisher.publish(number(1)).await.unwrap();
    sleep(SECOND).await;
    signal.send(()).unwrap();
    run.await.unwrap().unwrap();
    let state = broker.queue("s.q").unwrap();
    assert_eq!((state.ready, state.unacked, state.delayed, state.consumers), (0, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_never_reached_its_broker_ends_with_its_signal() {
    let broker = InProcess::new();
    broker.pause();
    let handler = || async { Ok::<(), HandlerError>(()) };
    let service = Service::new("s").subscribe(numbers().handler(handler));
    service.run(broker.clone()).with_graceful_shutdown(sleep(SECOND)).await.unwrap();
    assert!(broker.queues().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_dropped_leaves_its_messages_to_others_though_a_publisher_lives() {
    let broker = InProcess::new();
    let handler = || std::future::pending::<Result<(), HandlerError>>();
    let running = start(&broker, numbers().handler(handler)).await;
    publish(&running, 0..20).await;
    sleep(SECOND).await;
    let publisher = running.publisher().clone();
    drop(running);
    sleep(SECOND).await;
    let state = broker.queue("s.q").unwrap();
    assert_eq!((state.ready, state.unacked, state.consumers), (20, 0, 0));
    drop(publisher);
}

#[tokio::test(start_paused = true)]
async fn each_subscription_is_counted_for_itself_and_still_after_the_stop() {
    let broker = InProcess::new();
    let fine = || async { Ok::<(), HandlerError>(()) };
    let never = || async { Err::<(), _>("never").permanent() };
    let running = Service::new("s")
        .subscribe(Subscription::per_service("fine", ["number.#"]).handler(fine))
        .subscribe(Subscription::per_service("never", ["number.#"]).handler(never))
        .start(broker.clone())
        .await
        .unwrap();
    publish(&running, 0..3).await;
    broker.idle().await;
    let stats = running.stats().clone();
    running.stop().await.unwrap();
    assert_eq!(stats.subscription("fine").unwrap().succeeded, 3);
    assert_eq!(stats.subscription("never").unwrap().dead_lettered, 3);
    assert_eq!(stats.subscription("other"), None);
    assert_eq!(stats.total().fetched, 6);
    assert_eq!(stats.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["fine", "never"]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_say_when_it_is_tried_again() {
    let broker = InProcess::new();
    let handler = |Attempt(attempt): Attempt| async move {
        match attempt {
            1 => Err(HandlerError::retryable("busy").retry_after(60 * SECOND)),
            2 => Ok(Outcome::Retry { after: Some(600 * SECOND) }),
            3 => Ok(Outcome::Retry { after: None }),
            _ => Ok(Outcome::Done),
        }
    };
    let running = start(&broker, numbers().handler(handler)).await;
    let began = Instant::now();
    publish(&running, 0..1).await;
    broker.idle().await;
    assert_eq!(began.elapsed().as_secs(), 661);
}

#[tokio::test(start_paused = true)]
async fn a_shared_queue_takes_what_is_sent_to_it_by_name_from_every_service() {
    let broker = InProcess::new();
    let gate = Arc::new(Semaphore::new(0));
    let mut services = Vec::new();
    for name in ["one", "two"] {
        let gate = Arc::clone(&gate);
        let handler = move || {
            let gate = Arc::clone(&gate);
            async move {
                let _pass = gate.acquire().await?;
                Ok::<(), HandlerError>(())
            }
        };
        let shared = Subscription::shared("work").handler(handler);
        let service = Service::new(name).subscribe(shared);
        services.push(service.start(broker.clone()).await.unwrap());
    }
    for n in 0..10 {
        let command = Outgoing::to_queue("work", "Work", &n);
        services[0].publisher().publish(command).await.unwrap();
    }
    sleep(SECOND).await;
    let taken: Vec<_> = services.iter().map(|s| s.stats().total().in_flight).collect();
    assert_eq!(taken, [5, 5]);
    gate.add_permits(1);
    broker.idle().await;
}

/// S47: seen from another thread, under everything that can go wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fetched_is_the_sum_of_what_became_of_it_at_every_moment() {
    let broker = InProcess::new();
    broker.chaos(Chaos::new().duplicates(0.1).dropped_acks(0.1).seed(5));
    let handler = |Json(n): Json<u64>, Attempt(attempt): Attempt| async move {
        tokio::task::yield_now().await;
        match n % 5 {
            0 if attempt == 1 => Err(HandlerError::retryable("once more")),
            1 => Err("never").permanent(),
            2 => Ok(Outcome::dead_letter("no")),
            _ => Ok(Outcome::Done),
        }
    };
    let quick = numbers().retry(RetryPolicy::fixed(Duration::from_millis(5))).handler(handler);
    let running = start(&broker, quick).await;
    let (stats, done) = (running.stats().clone(), Arc::new(AtomicUsize::new(0)));
    let sampler = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let (mut samples, mut busy) = (0_u64, 0_u64);
            while done.load(Ordering::SeqCst) == 0 {
                let counts = stats.total();
                assert!(counts.is_conserved(), "{counts:?}");
                samples += 1;
                std::thread::sleep(Duration::from_micros(50));
                busy += u64::from(counts.in_flight > 0);
            }
            (samples, busy)
        }
    });
    for n in 0..3000 {
        running.publisher().publish(number(n)).await.unwrap();
        if n % 500 == 250 {
            broker.cut();
        }
    }
    broker.idle().await;
    done.store(1, Ordering::SeqCst);
    let (samples, busy) = sampler.join().unwrap();
    assert!(samples > 100 && busy > 0, "{samples} samples, {busy} of them while it was busy");
    let counts = running.stats().total();
    assert!(counts.is_conserved() && counts.in_flight == 0, "{counts:?}");
    running.stop().await.unwrap();
}
