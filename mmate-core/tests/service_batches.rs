//! Handlers of many messages at a time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::message::Message;
use mmate_core::{
    Batch, BatchOutcome, BatchPolicy, Context, HandlerError, InProcess, Middleware, Next, OrderKey,
    Outcome, Outgoing, RetryPolicy, Running, Service, ServiceError, State, Subscription,
    SubscriptionBuilder,
};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// The batches that a handler was given: numbers, and on which attempt.
type Batches = Arc<Mutex<Vec<Vec<(u64, u32)>>>>;

fn store() -> SubscriptionBuilder {
    Subscription::per_service("store", ["thing.#"])
        .retry(RetryPolicy::fixed(SECOND).max_attempts(3))
}

fn up_to(messages: usize) -> BatchPolicy {
    BatchPolicy::up_to(messages).within(SECOND)
}

async fn start(broker: &InProcess, subscription: Subscription) -> Running {
    let service = Service::new("s").subscribe(subscription);
    service.start(broker.clone()).await.unwrap()
}

async fn publish(running: &Running, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        let event = Outgoing::event("thing.a.b", "Thing", &n);
        running.publisher().publish(event).await.unwrap();
    }
}

/// A handler that notes its batches, and answers as the script says.
fn noting<F, R>(batches: &Batches, script: F) -> impl mmate_core::BatchHandler<(Batch<u64>,)>
where
    F: Fn(&Batch<u64>) -> Result<R, HandlerError> + Send + Sync + 'static,
    R: mmate_core::IntoBatchOutcome + Send + 'static,
{
    let batches = Arc::clone(batches);
    move |batch: Batch<u64>| {
        let noted = batch.iter().map(|item| (*item.value(), item.attempt())).collect();
        batches.lock().unwrap().push(noted);
        let result = script(&batch);
        async move { result }
    }
}

fn seen(batches: &Batches) -> Vec<Vec<(u64, u32)>> {
    batches.lock().unwrap().clone()
}

fn reasons(letters: &[Message]) -> Vec<&str> {
    letters.iter().filter_map(|letter| letter.headers.text("x-mmate-reason")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_runs_at_once_and_the_rest_when_its_time_is_up() {
    let (broker, batches) = (InProcess::new(), Batches::default());
    let handler = noting(&batches, |_| Ok(()));
    let running = start(&broker, store().batch_handler(up_to(3), handler)).await;
    let begin = Instant::now();
    publish(&running, 0..7).await;
    while seen(&batches).len() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    assert!(begin.elapsed() < SECOND / 2, "full batches do not wait");
    broker.idle().await;
    assert!(begin.elapsed() >= SECOND, "the last one waited for more");
    let sizes: Vec<_> = seen(&batches).iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3, 1]);
    let counts = running.stats().total();
    assert_eq!((counts.fetched, counts.succeeded, counts.in_flight), (7, 7, 0));
}

#[tokio::test(start_paused = true)]
async fn an_error_is_an_error_of_all_each_on_its_own_count_of_attempts() {
    let (broker, batches) = (InProcess::new(), Batches::default());
    let handler = noting(&batches, |batch| match batch.values().any(|n| *n == 1) {
        true => Err(HandlerError::retryable("with 1 there is no success")),
        false => Ok(()),
    });
    let running = start(&broker, store().batch_handler(up_to(2), handler)).await;
    publish(&running, [0, 1]).await;
    // They come again together, and for 1 also alone; 2 joins it on its own first attempt.
    sleep(2 * SECOND + SECOND / 2).await;
    publish(&running, [2]).await;
    broker.idle().await;
    let attempts_of = |n| -> Vec<u32> {
        seen(&batches).concat().iter().filter(|(m, _)| *m == n).map(|(_, a)| *a).collect()
    };
    assert_eq!(attempts_of(1), [1, 2, 3]);
    assert_eq!(attempts_of(2)[0], 1);
    let letters = broker.messages("dlq.s.store");
    assert!(reasons(&letters).iter().all(|reason| *reason == "attempts-exhausted"));
    let error = letters[0].headers.text("x-mmate-error").unwrap();
    assert_eq!(error, "attempt 3 was the last one: with 1 there is no success");
    assert!(running.stats().total().is_conserved());
}

#[tokio::test(start_paused = true)]
async fn each_message_may_have_an_outcome_of_its_own() {
    let (broker, batches) = (InProcess::new(), Batches::default());
    let handler = noting(&batches, |batch| {
        let mut outcome = BatchOutcome::done();
        for item in batch {
            match (item.value(), item.attempt()) {
                (1, 1) => outcome.fail(item, std::io::Error::other("not yet")),
                (2, _) => outcome.fail(item, HandlerError::permanent("never")),
                (3, _) => outcome.set(item, Outcome::dead_letter("no")),
                _ => {}
            }
        }
        Ok(outcome)
    });
    let running = start(&broker, store().batch_handler(up_to(5), handler)).await;
    publish(&running, 0..5).await;
    broker.idle().await;
    let counts = running.stats().total();
    assert_eq!((counts.fetched, counts.succeeded), (6, 3));
    assert_eq!((counts.retried, counts.dead_lettered), (1, 2));
    assert_eq!(seen(&batches)[1], [(1, 2)]);
    let letters = broker.messages("dlq.s.store");
    let mut reasons = reasons(&letters);
    reasons.sort_unstable();
    assert_eq!(reasons, ["handler", "permanent"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_dead_lettered_without_its_neighbours() {
    let (broker, batches) = (InProcess::new(), Batches::default());
    let handler = noting(&batches, |_| Ok(()));
    let running = start(&broker, store().batch_handler(up_to(2), handler)).await;
    publish(&running, [0]).await;
    let text = Outgoing::event("thing.a.b", "Thing", "no number");
    running.publisher().publish(text).await.unwrap();
    publish(&running, [1]).await;
    broker.idle().await;
    assert_eq!(seen(&batches), [[(0, 1), (1, 1)]]);
    assert_eq!(reasons(&broker.messages("dlq.s.store")), ["undecodable"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_a_timeout_are_those_of_all_messages() {
    let (broker, batches) = (InProcess::new(), Batches::default());
    let noted = Arc::clone(&batches);
    let handler = move |batch: Batch<u64>| {
        let attempt = batch.iter().map(|item| item.attempt()).max().unwrap();
        noted.lock().unwrap().push(batch.iter().map(|i| (*i.value(), i.attempt())).collect());
        async move {
            match attempt {
                1 => panic!("a bad day"),
                2 => sleep(3600 * SECOND).await,
                _ => {}
            }
            Ok::<(), HandlerError>(())
        }
    };
    let subscription = store().timeout(10 * SECOND).batch_handler(up_to(2), handler);
    let running = start(&broker, subscription).await;
    publish(&running, 0..2).await;
    broker.idle().await;
    let attempts: Vec<Vec<u32>> =
        seen(&batches).iter().map(|batch| batch.iter().map(|(_, a)| *a).collect()).collect();
    assert_eq!(attempts, [[1, 1], [2, 2], [3, 3]]);
    let counts = running.stats().total();
    assert_eq!((counts.fetched, counts.retried, counts.succeeded), (6, 4, 2));
}

/// S49: what has gathered is handled at the stop, without waiting for more.
#[tokio::test(start_paused = true)]
async fn a_drain_handles_an_incomplete_batch_at_once() {
    let (broker, batches) = (InProcess::new(), Batches::default());
    let handler = noting(&batches, |_| Ok(()));
    let policy = BatchPolicy::up_to(100).within(3600 * SECOND);
    let running = start(&broker, store().batch_handler(policy, handler)).await;
    publish(&running, 0..5).await;
    while running.stats().total().in_flight < 5 {
        sleep(Duration::from_millis(1)).await;
    }
    let (begin, stats) = (Instant::now(), running.stats().clone());
    running.stop().await.unwrap();
    assert!(begin.elapsed() < SECOND);
    assert_eq!(seen(&batches).concat().len(), 5);
    assert_eq!((stats.total().succeeded, stats.total().in_flight), (5, 0));
}

/// A handler that outlives the drain is dropped, and its messages go back.
#[tokio::test(start_paused = true)]
async fn a_batch_that_outlives_the_drain_is_dropped_and_its_messages_go_back() {
    let broker = InProcess::new();
    let (dropped, alive) = (Arc::new(()), Arc::new(Mutex::new(Vec::new())));
    let handler = {
        let (token, alive) = (Arc::clone(&dropped), Arc::clone(&alive));
        move |batch: Batch<u64>| {
            let token = Arc::clone(&token);
            alive.lock().unwrap().push(Arc::downgrade(&token));
            async move {
                let _held = (batch, token);
                sleep(3600 * SECOND).await;
                Ok::<(), HandlerError>(())
            }
        }
    };
    let service =
        Service::new("s").subscribe(store().batch_handler(up_to(2), handler)).drain_timeout(SECOND);
    let running = service.start(broker.clone()).await.unwrap();
    publish(&running, 0..2).await;
    while alive.lock().unwrap().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    let before = Arc::strong_count(&dropped);
    let stats = running.stats().clone();
    running.stop().await.unwrap();
    sleep(SECOND).await;
    assert!(Arc::strong_count(&dropped) < before, "the handler does not go on unseen");
    assert_eq!((stats.total().deferred, stats.total().in_flight), (2, 0));
    assert_eq!(broker.queue("s.store").unwrap().ready, 2);
}

/// `concurrency` is a number of batches.
#[tokio::test(start_paused = true)]
async fn as_many_batches_run_as_the_concurrency_says() {
    let broker = InProcess::new();
    let handler = async |batch: Batch<u64>| {
        assert_eq!(batch.len(), 2);
        sleep(SECOND).await;
        Ok::<(), HandlerError>(())
    };
    let subscription = store().concurrency(2).batch_handler(up_to(2), handler);
    let running = start(&broker, subscription).await;
    let begin = Instant::now();
    publish(&running, 0..12).await;
    broker.idle().await;
    // Six batches, two at a time.
    assert_eq!(begin.elapsed().as_secs(), 3);
}

/// Middleware goes around each message, not around the batch.
#[tokio::test(start_paused = true)]
async fn middleware_sees_each_message_with_its_own_outcome() {
    struct Listing(Arc<Mutex<Vec<bool>>>);
    #[async_trait::async_trait]
    impl Middleware for Listing {
        async fn handle(&self, c: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
            let result = next.run(c).await;
            self.0.lock().unwrap().push(result.is_ok());
            result
        }
    }
    let (broker, batches) = (InProcess::new(), Batches::default());
    let results = Arc::new(Mutex::new(Vec::new()));
    let handler = noting(&batches, |batch| {
        let mut outcome = BatchOutcome::done();
        for item in batch.iter().filter(|item| *item.value() == 1) {
            outcome.fail(item, HandlerError::permanent("no"));
        }
        Ok(outcome)
    });
    let subscription =
        store().middleware(Listing(Arc::clone(&results))).batch_handler(up_to(3), handler);
    let running = start(&broker, subscription).await;
    publish(&running, 0..3).await;
    broker.idle().await;
    let mut results = results.lock().unwrap().clone();
    results.sort_unstable();
    assert_eq!(results, [false, true, true]);
    assert_eq!(seen(&batches).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn in_an_ordered_subscription_a_batch_has_one_message_of_a_key() {
    let (broker, batches) = (InProcess::new(), Batches::default());
    let handler = noting(&batches, |_| Ok(()));
    let subscription =
        store().ordered_by(OrderKey::topic_word(1)).batch_handler(up_to(10), handler);
    let running = start(&broker, subscription).await;
    for n in 0..6_u64 {
        let topic = format!("thing.k{}.b", n % 2);
        let event = Outgoing::event(topic, "Thing", &n);
        running.publisher().publish(event).await.unwrap();
    }
    broker.idle().await;
    let numbers: Vec<Vec<u64>> =
        seen(&batches).iter().map(|batch| batch.iter().map(|(n, _)| *n).collect()).collect();
    assert_eq!(numbers, [[0, 1], [2, 3], [4, 5]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_handler_may_take_state_and_what_is_missing_is_told_at_the_start() {
    #[derive(Clone)]
    struct Limit(usize);
    async fn handler(batch: Batch<u64>, State(limit): State<Limit>) -> Result<(), HandlerError> {
        assert!(batch.len() <= limit.0);
        Ok(())
    }
    let broker = InProcess::new();
    let service = Service::new("s").subscribe(store().batch_handler(up_to(2), handler));
    let error = service.start(broker.clone()).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("takes State<"), "{error}");
    let service = Service::new("s").state(Limit(2));
    let service = service.subscribe(store().batch_handler(up_to(2), handler));
    let running = service.start(broker.clone()).await.unwrap();
    publish(&running, 0..2).await;
    broker.idle().await;
    assert_eq!(running.stats().total().succeeded, 2);
}

#[tokio::test]
async fn batches_that_cannot_be_are_refused_at_the_start() {
    let nothing = async |_: Batch<u64>| Ok::<(), HandlerError>(());
    let small = NonZeroU16::new(10).unwrap();
    for (subscription, part) in [
        (store().batch_handler(up_to(0), nothing), "batches of up to 0 messages"),
        (
            store().prefetch(small).concurrency(1).batch_handler(up_to(11), nothing),
            "batches of up to 11 messages and a prefetch of 10",
        ),
    ] {
        let started = Service::new("s").subscribe(subscription).start(InProcess::new()).await;
        let Err(ServiceError::Config(errors)) = started else { panic!("it cannot work") };
        assert!(errors[0].to_string().contains(part), "{}", errors[0]);
    }
}

/// S47, with everything that can become of a message.
#[tokio::test(start_paused = true)]
async fn the_counts_are_conserved_at_every_look() {
    let (broker, batches) = (InProcess::new(), Batches::default());
    let mut random = fastrand::Rng::with_seed(7);
    let dice = Mutex::new(random.fork());
    let handler = noting(&batches, move |batch| {
        let mut dice = dice.lock().unwrap();
        if dice.u32(0..10) == 0 {
            return Err(HandlerError::retryable("all"));
        }
        let mut outcome = BatchOutcome::done();
        for item in batch {
            match dice.u32(0..20) {
                0 => outcome.fail(item, HandlerError::retryable("one")),
                1 => outcome.set(item, Outcome::Defer { after: SECOND }),
                2 => outcome.fail(item, HandlerError::permanent("one")),
                _ => {}
            }
        }
        Ok(outcome)
    });
    let running = start(&broker, store().batch_handler(up_to(7), handler)).await;
    for n in 0..500 {
        publish(&running, [n]).await;
        if random.u32(0..20) == 0 {
            sleep(Duration::from_millis(random.u64(0..500))).await;
        }
        if random.u32(0..60) == 0 {
            broker.cut();
        }
        assert!(running.stats().total().is_conserved());
    }
    broker.idle().await;
    let counts = running.stats().total();
    assert!(counts.is_conserved() && counts.in_flight == 0, "{counts:?}");
    assert!(counts.succeeded + counts.dead_lettered >= 500, "{counts:?}");
}
