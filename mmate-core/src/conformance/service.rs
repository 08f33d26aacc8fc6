//! A whole service on the transport: sharing, stopping, publishing, counting.

use std::collections::HashSet;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Barrier, Semaphore, mpsc};

use super::Harness;
use super::stage::{Stage, eventually, soon};
use crate::handler::{Attempt, FromContext, Json};
use crate::message::Outgoing;
use crate::outcome::{Duplicate, DuplicateReason, HandlerError, Outcome, Permanent};
use crate::service::{Running, Service};
use crate::subscription::{RetryPolicy, Subscription, SubscriptionBuilder};
use crate::transport::{QueueMode, QueuePlan};

pub(super) const RETRY_DELAY: Duration = Duration::from_millis(100);

/// A subscription of a stage's service, named `q`, to the events below the stage's root.
pub(super) fn subscription<H: Harness>(
    stage: &Stage<'_, H>,
    patterns: &[&str],
) -> SubscriptionBuilder {
    let patterns = patterns.iter().map(|pattern| stage.name(pattern));
    Subscription::per_service("q", patterns).retry(RetryPolicy::fixed(RETRY_DELAY))
}

/// The queue of that subscription.
pub(super) fn queue_of<H: Harness>(stage: &Stage<'_, H>) -> QueuePlan {
    QueuePlan::new(stage.name("service.q"), QueueMode::PerService)
}

pub(super) async fn start<H: Harness>(
    stage: &Stage<'_, H>,
    name: &str,
    subscription: Subscription,
) -> Running {
    let service = Service::new(stage.name(name)).subscribe(subscription);
    run(stage, service).await
}

pub(super) async fn run<H: Harness>(stage: &Stage<'_, H>, service: Service) -> Running {
    let starting = service.start(stage.harness.transport());
    soon("starting the service", starting).await.expect("the service starts")
}

pub(super) async fn stop(running: Running) {
    soon("stopping the service", running.stop()).await.expect("the service did not fail");
}

/// Publishes an event with a number.
pub(super) async fn publish<H: Harness>(stage: &Stage<'_, H>, by: &Running, topic: &str, n: u64) {
    let event = Outgoing::event(stage.name(topic), "Number", &n);
    let published = soon("publishing", by.publisher().publish(event)).await;
    published.expect("the event is published");
}

/// What a handler said, in order.
pub(super) struct Heard<T>(pub(super) mpsc::UnboundedReceiver<T>);

impl<T> Heard<T> {
    pub(super) fn new() -> (mpsc::UnboundedSender<T>, Self) {
        let (say, heard) = mpsc::unbounded_channel();
        (say, Self(heard))
    }

    pub(super) async fn next(&mut self) -> T {
        let next = soon("a word of the handler", self.0.recv()).await;
        next.expect("the handler goes on")
    }
}

/// Two processes of one service work side by side, on different messages.
pub async fn instances_of_a_service_share_its_messages<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    // Each handling waits for one that runs at the same time.
    let both = Arc::new(Barrier::new(2));
    let mut instances = Vec::new();
    for instance in ["one", "two"] {
        let (say, both) = (say.clone(), Arc::clone(&both));
        let handler = move |Json(n): Json<u64>| {
            let (say, both) = (say.clone(), Arc::clone(&both));
            async move {
                both.wait().await;
                let _ = say.send((instance, n));
                Ok::<(), HandlerError>(())
            }
        };
        let alone = subscription(&stage, &["#"]).prefetch(NonZeroU16::MIN).concurrency(1);
        instances.push(start(&stage, "service", alone.handler(handler)).await);
    }
    for n in 0..20 {
        publish(&stage, &instances[0], "a", n).await;
    }
    let mut seen = HashSet::new();
    let mut by_one = 0;
    for _ in 0..20 {
        let (instance, n) = heard.next().await;
        assert!(seen.insert(n), "each message goes to one instance");
        by_one += usize::from(instance == "one");
    }
    assert_eq!(by_one, 10);
    for running in instances {
        stop(running).await;
    }
}

/// Publish and subscribe between services.
pub async fn each_service_has_its_own_copy<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let mut services = Vec::new();
    for name in ["billing", "shipping"] {
        let say = say.clone();
        let handler = move |Json(n): Json<u64>| {
            let _ = say.send((name, n));
            async { Ok::<(), HandlerError>(()) }
        };
        services.push(start(&stage, name, subscription(&stage, &["#"]).handler(handler)).await);
    }
    for n in 0..3 {
        publish(&stage, &services[0], "a", n).await;
    }
    let mut all = HashSet::new();
    for _ in 0..6 {
        all.insert(heard.next().await);
    }
    assert_eq!(all.len(), 6, "three messages for each of two services: {all:?}");
    for running in services {
        stop(running).await;
    }
}

/// S49: what runs is finished and settled; what was fetched and not begun goes to others.
pub async fn a_stop_finishes_what_runs_and_gives_back_the_rest<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = Arc::clone(&gate);
        move |Json(n): Json<u64>| {
            let (say, gate) = (say.clone(), Arc::clone(&gate));
            async move {
                let _ = say.send(n);
                let _pass = gate.acquire().await?;
                Ok::<(), HandlerError>(())
            }
        }
    };
    let two = subscription(&stage, &["#"]).concurrency(2).handler(handler.clone());
    let first = start(&stage, "service", two).await;
    for n in 0..5 {
        publish(&stage, &first, "a", n).await;
    }
    let mut begun = vec![heard.next().await, heard.next().await];
    begun.sort_unstable();
    assert_eq!(begun, [0, 1]);

    let stats = first.stats().clone();
    let open_when_given_back = async {
        stage.until_ready(&queue_of(&stage), 3).await;
        gate.add_permits(100);
    };
    tokio::join!(stop(first), open_when_given_back);
    let counts = stats.total();
    assert_eq!((counts.fetched, counts.succeeded, counts.in_flight), (2, 2, 0));
    assert_eq!(counts.settlements_lost, 0);

    let second = start(&stage, "service", subscription(&stage, &["#"]).handler(handler)).await;
    let mut rest = vec![heard.next().await, heard.next().await, heard.next().await];
    rest.sort_unstable();
    assert_eq!(rest, [2, 3, 4]);
    stop(second).await;
    stage.until_ready(&queue_of(&stage), 0).await;
}

/// S49: a drain has an end; what did not finish is no failed attempt.
pub async fn a_stop_drops_what_runs_longer_than_the_drain<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let endless = {
        let say = say.clone();
        move |Attempt(attempt): Attempt| {
            let _ = say.send(attempt);
            std::future::pending::<Result<(), HandlerError>>()
        }
    };
    let service = Service::new(stage.name("service"))
        .drain_timeout(Duration::from_millis(100))
        .subscribe(subscription(&stage, &["#"]).handler(endless));
    let first = run(&stage, service).await;
    publish(&stage, &first, "a", 1).await;
    assert_eq!(heard.next().await, 1);
    let stats = first.stats().clone();
    stop(first).await;
    assert!(stats.total().is_conserved());
    assert_eq!(stats.total().in_flight, 0);

    let prompt = move |Attempt(attempt): Attempt| {
        let _ = say.send(attempt);
        async { Ok::<(), HandlerError>(()) }
    };
    let second = start(&stage, "service", subscription(&stage, &["#"]).handler(prompt)).await;
    assert_eq!(heard.next().await, 1, "being dropped by a drain is no failed attempt");
    stop(second).await;
}

/// S5: a handler outlives its connection. The redelivery is adopted and not run, and its
/// acknowledgement is the one that the broker gets.
pub async fn what_is_handled_during_a_cut_does_not_run_twice<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = Arc::clone(&gate);
        move |Json(n): Json<u64>| {
            let (say, gate) = (say.clone(), Arc::clone(&gate));
            async move {
                let _ = say.send(n);
                if n == 1 {
                    let _pass = gate.acquire().await?;
                }
                Ok::<(), HandlerError>(())
            }
        }
    };
    let running = start(&stage, "service", subscription(&stage, &["#"]).handler(handler)).await;
    let stats = running.stats().clone();
    publish(&stage, &running, "a", 1).await;
    assert_eq!(heard.next().await, 1);
    for cuts in 1..=2 {
        soon("the cut", harness.cut()).await;
        eventually("the redelivery", async || stats.total().adopted == cuts).await;
    }
    publish(&stage, &running, "a", 2).await;
    assert_eq!(heard.next().await, 2, "the service goes on, and 1 does not run again");
    gate.add_permits(1);
    eventually("the end of both", async || stats.total().succeeded == 2).await;
    stop(running).await;
    let counts = stats.total();
    assert_eq!((counts.fetched, counts.settlements_lost), (2, 0), "{counts:?}");
    stage.until_ready(&queue_of(&stage), 0).await;
}

/// How often a message was deferred.
pub(super) struct Deferrals(pub(super) u32);

impl FromContext for Deferrals {
    async fn from_context(context: &crate::Context) -> Result<Self, HandlerError> {
        Ok(Self(context.deferrals()))
    }
}

/// S47: fetched is the sum of everything that became of the messages, at every moment.
pub async fn every_fetched_message_is_accounted_for_at_all_times<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mixed = |Json(n): Json<u64>, Attempt(attempt): Attempt, Deferrals(deferrals): Deferrals| async move {
        tokio::task::yield_now().await;
        match n % 6 {
            1 if attempt == 1 => Err(HandlerError::retryable("once more")),
            2 if deferrals == 0 => Ok(Outcome::Defer { after: RETRY_DELAY }),
            3 => Err("never").permanent(),
            4 => Ok(Outcome::Duplicate(Duplicate::new(DuplicateReason::Handler, None))),
            5 if attempt == 1 => panic!("this is part of the test"),
            _ => Ok(Outcome::Done),
        }
    };
    let running = start(&stage, "service", subscription(&stage, &["#"]).handler(mixed)).await;
    let stats = running.stats().clone();
    let sampling = tokio::spawn(async move {
        let mut samples = 0_u64;
        loop {
            let counts = stats.total();
            assert!(counts.is_conserved(), "after {samples} samples: {counts:?}");
            samples += 1;
            if counts.fetched == 450 && counts.in_flight == 0 {
                return counts;
            }
            // Often, but not without end on a clock that moves only when nobody is busy.
            if samples.is_multiple_of(100) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::task::yield_now().await;
        }
    });
    for n in 0..300 {
        publish(&stage, &running, "a", n).await;
    }
    let counts = soon("the end of all handling", sampling).await.expect("the law is kept");
    let ends = [counts.succeeded, counts.retried, counts.deferred, counts.dead_lettered];
    assert_eq!(ends, [200, 100, 50, 50]);
    assert_eq!(counts.duplicates.handler, 50);
    stop(running).await;
}
