//! The broker inside the process: what it shows to a test, and what it lets go wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::message::wire;
use mmate_core::{
    Attempt, Chaos, HandlerError, InProcess, Json, Outgoing, Permanent, PublishError, Publisher,
    RetryPolicy, Running, Service, Subscription,
};
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

fn number(n: u64) -> Outgoing {
    Outgoing::event("number.made.eu", "Number", &n)
}

/// A service whose handler counts and succeeds.
async fn counting(broker: &InProcess) -> (Running, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let handler = {
        let count = Arc::clone(&count);
        move || {
            count.fetch_add(1, Ordering::SeqCst);
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let subscription = Subscription::per_service("count", ["number.made.*"]).handler(handler);
    let running = Service::new("s").subscribe(subscription).start(broker.clone()).await.unwrap();
    (running, count)
}

#[tokio::test]
async fn an_empty_broker_is_idle() {
    InProcess::new().idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_the_broker_is_idle_everything_published_before_is_handled_and_counted() {
    let broker = InProcess::new();
    let (running, count) = counting(&broker).await;
    for n in 1..=500 {
        running.publisher().publish(number(n)).await.unwrap();
        broker.idle().await;
        assert_eq!(count.load(Ordering::SeqCst) as u64, n);
        assert_eq!(running.stats().total().succeeded, n);
        assert_eq!(running.stats().total().in_flight, 0);
    }
}

#[tokio::test]
async fn the_broker_is_not_idle_while_a_handler_causes_more_work() {
    let broker = InProcess::new();
    let countdown = |Json(n): Json<u64>, publisher: Publisher| async move {
        tokio::task::yield_now().await;
        if n > 0 {
            publisher.publish(number(n - 1)).await?;
        }
        Ok::<(), HandlerError>(())
    };
    let running = Service::new("s")
        .subscribe(Subscription::per_service("q", ["number.made.*"]).handler(countdown))
        .start(broker.clone())
        .await
        .unwrap();
    running.publisher().publish(number(20)).await.unwrap();
    broker.idle().await;
    assert_eq!(running.stats().total().succeeded, 21);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_an_hour_takes_no_time_on_a_paused_clock() {
    let broker = InProcess::new();
    let handler = |Attempt(attempt): Attempt| async move {
        if attempt < 4 { Err(HandlerError::retryable("not yet")) } else { Ok(()) }
    };
    let subscription = Subscription::per_service("q", ["number.made.*"])
        .retry(RetryPolicy::fixed(HOUR))
        .handler(handler);
    let running = Service::new("s").subscribe(subscription).start(broker.clone()).await.unwrap();
    let began = Instant::now();
    running.publisher().publish(number(1)).await.unwrap();
    broker.idle().await;
    assert_eq!(running.stats().total().succeeded, 1);
    assert!(began.elapsed() >= 3 * HOUR && began.elapsed() < 3 * HOUR + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_test_sees_where_each_message_is() {
    let broker = InProcess::new();
    let handler = |Json(n): Json<u64>| async move {
        match n {
            0 => Err(HandlerError::retryable("later")),
            1 => Err("never").permanent(),
            2 => Ok(()),
            _ => std::future::pending().await,
        }
    };
    let subscription = Subscription::per_service("q", ["number.made.*"])
        .prefetch(NonZeroU16::new(5).unwrap())
        .concurrency(5)
        .retry(RetryPolicy::fixed(HOUR))
        .timeout(2 * HOUR)
        .handler(handler);
    let running = Service::new("s").subscribe(subscription).start(broker.clone()).await.unwrap();
    assert_eq!(broker.queues(), ["dlq.s.q", "s.q"]);
    for n in 0..10 {
        running.publisher().publish(number(n)).await.unwrap();
    }
    // Long enough for everything to be handed out, and too short for the retry.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let state = broker.queue("s.q").unwrap();
    assert_eq!((state.ready, state.unacked, state.delayed, state.consumers), (2, 5, 1, 1));
    let waiting: Vec<_> = broker.messages("s.q").iter().map(|m| m.properties.clone()).collect();
    assert_eq!(waiting.len(), 2);
    assert_eq!(waiting[0].message_type.as_deref(), Some("Number"));

    let dead = broker.dead_letters("s.q");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].headers.text(wire::REASON), Some("permanent"));
    assert_eq!(dead[0].headers.text(wire::ROUTING_KEY), Some("number.made.eu"));
    assert_eq!(broker.queue("s.r"), None);
    assert!(broker.messages("s.r").is_empty());
}

#[tokio::test]
async fn the_broker_is_idle_although_messages_wait_where_nobody_consumes() {
    let broker = InProcess::new();
    let (running, count) = counting(&broker).await;
    running.stop().await.unwrap();
    let publisher = Publisher::connect(&broker, "test").await.unwrap();
    publisher.publish(number(1)).await.unwrap();
    broker.idle().await;
    assert_eq!(broker.queue("s.count").unwrap().ready, 1);
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn exactly_the_next_messages_come_twice_when_told_so() {
    let broker = InProcess::new();
    let (running, count) = counting(&broker).await;
    broker.duplicate_next(2);
    for n in 0..5 {
        running.publisher().publish(number(n)).await.unwrap();
    }
    broker.idle().await;
    assert_eq!(count.load(Ordering::SeqCst), 7);
    assert_eq!(running.stats().total().succeeded, 7);
}

#[tokio::test]
async fn exactly_the_next_acknowledgements_are_lost_when_told_so() {
    let broker = InProcess::new();
    let (running, count) = counting(&broker).await;
    broker.drop_next_acks(2);
    running.publisher().publish(number(1)).await.unwrap();
    broker.idle().await;
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert_eq!(running.stats().total().settlements_lost, 2);
}

#[tokio::test]
async fn a_message_whose_confirmation_is_lost_arrives_all_the_same() {
    let broker = InProcess::new();
    let (running, count) = counting(&broker).await;
    broker.drop_next_confirms(1);
    let lost = running.publisher().publish(number(1)).await;
    assert!(matches!(lost, Err(PublishError::Ambiguous { .. })), "{lost:?}");
    running.publisher().publish(number(2)).await.unwrap();
    broker.idle().await;
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_duplicate_is_no_redelivery_and_a_lost_acknowledgement_makes_one() {
    let broker = InProcess::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    struct Redelivered(bool);
    impl mmate_core::FromContext for Redelivered {
        async fn from_context(context: &mmate_core::Context) -> Result<Self, HandlerError> {
            Ok(Self(context.redelivered()))
        }
    }
    let handler = {
        let seen = Arc::clone(&seen);
        move |Redelivered(redelivered): Redelivered| {
            seen.lock().unwrap().push(redelivered);
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let running = Service::new("s")
        .subscribe(Subscription::per_service("q", ["number.made.*"]).handler(handler))
        .start(broker.clone())
        .await
        .unwrap();
    broker.duplicate_next(1);
    running.publisher().publish(number(1)).await.unwrap();
    broker.idle().await;
    broker.drop_next_acks(1);
    running.publisher().publish(number(2)).await.unwrap();
    broker.idle().await;
    assert_eq!(*seen.lock().unwrap(), [false, false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn who_publishes_while_the_broker_is_away_waits_until_it_is_back() {
    let broker = InProcess::new();
    let (running, count) = counting(&broker).await;
    broker.pause();
    let publishing = running.publisher().publish(number(1));
    assert!(tokio::time::timeout(HOUR, publishing).await.is_err());
    assert!(tokio::time::timeout(HOUR, Publisher::connect(&broker, "late")).await.is_err());
    let later = tokio::spawn({
        let publisher = running.publisher().clone();
        async move { publisher.publish(number(2)).await }
    });
    tokio::time::sleep(HOUR).await;
    assert!(!later.is_finished());
    broker.resume();
    later.await.unwrap().unwrap();
    broker.idle().await;
    assert_eq!(count.load(Ordering::SeqCst), 1, "a publication that was given up is not made");
}

/// S5: the handling went on meanwhile, and is what settles the message when it is shown again.
#[tokio::test(start_paused = true)]
async fn what_was_handled_while_the_broker_was_away_is_settled_when_it_is_back() {
    let broker = InProcess::new();
    let handler = || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<(), HandlerError>(())
    };
    let running = Service::new("s")
        .subscribe(Subscription::per_service("q", ["number.made.*"]).handler(handler))
        .start(broker.clone())
        .await
        .unwrap();
    running.publisher().publish(number(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    broker.pause();
    tokio::time::sleep(HOUR).await;
    assert_eq!(running.stats().total().settlements_lost, 1);
    assert_eq!(broker.queue("s.q").unwrap().ready, 1);
    broker.resume();
    broker.idle().await;
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.adopted), (1, 1));
}

#[tokio::test]
async fn a_queue_per_instance_loses_what_it_has_at_a_cut() {
    let broker = InProcess::new();
    let handler = || std::future::pending::<Result<(), HandlerError>>();
    let running = Service::new("s")
        .instance("i")
        .drain_timeout(Duration::ZERO)
        .subscribe(Subscription::per_instance("q", ["number.made.*"]).handler(handler))
        .start(broker.clone())
        .await
        .unwrap();
    for n in 0..3 {
        running.publisher().publish(number(n)).await.unwrap();
    }
    assert_eq!(broker.queue("s.q.i").unwrap().unacked, 3);
    broker.cut();
    let state = broker.queue("s.q.i").unwrap();
    assert_eq!((state.ready, state.unacked, state.consumers), (0, 0, 1));
    broker.idle().await;
    running.stop().await.unwrap();
    assert_eq!(broker.queue("s.q.i"), None);
}

#[tokio::test]
async fn a_service_that_is_dropped_gives_its_messages_back() {
    let broker = InProcess::new();
    let handler = || std::future::pending::<Result<(), HandlerError>>();
    let running = Service::new("s")
        .subscribe(Subscription::per_service("q", ["number.made.*"]).handler(handler))
        .start(broker.clone())
        .await
        .unwrap();
    for n in 0..50 {
        running.publisher().publish(number(n)).await.unwrap();
    }
    assert_eq!(broker.queue("s.q").unwrap().unacked, 50);
    drop(running);
    tokio::time::timeout(Duration::from_secs(30), async {
        while broker.queue("s.q").unwrap().ready < 50 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(broker.queue("s.q").unwrap().consumers, 0);
}

#[tokio::test]
async fn two_brokers_know_nothing_of_each_other_and_two_clones_are_one() {
    let broker = InProcess::new();
    let (running, count) = counting(&broker).await;
    let elsewhere = Publisher::connect(&InProcess::new(), "test").await.unwrap();
    let unroutable = elsewhere.publish(number(1)).await;
    assert!(matches!(unroutable, Err(PublishError::Unroutable { .. })), "{unroutable:?}");
    let here = Publisher::connect(&broker.clone(), "test").await.unwrap();
    here.publish(number(1)).await.unwrap();
    broker.idle().await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    running.stop().await.unwrap();
}

/// How often each of the messages was handled, under chaos and cuts.
async fn under_chaos(seed: u64, messages: u64) -> (HashMap<u64, usize>, InProcess, Running) {
    let broker = InProcess::new();
    broker.chaos(Chaos::new().duplicates(0.1).dropped_acks(0.1).seed(seed));
    let seen = Arc::new(Mutex::new(HashMap::new()));
    let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    let handler = {
        let (seen, random) = (Arc::clone(&seen), Arc::clone(&random));
        move |Json(n): Json<u64>| {
            let (seen, random) = (Arc::clone(&seen), Arc::clone(&random));
            async move {
                let (pause, dice) = {
                    let mut random = random.lock().unwrap();
                    (random.u64(0..20), random.u32(0..10))
                };
                tokio::time::sleep(Duration::from_millis(pause)).await;
                match dice {
                    0 => return Err(HandlerError::retryable("bad luck")),
                    1 => panic!("worse luck"),
                    _ => {}
                }
                *seen.lock().unwrap().entry(n).or_insert(0) += 1;
                Ok(())
            }
        }
    };
    let subscription = Subscription::per_service("q", ["number.made.*"])
        .prefetch(NonZeroU16::new(20).unwrap())
        .concurrency(8)
        .retry(RetryPolicy::fixed(Duration::from_millis(30)).max_attempts(u32::MAX))
        .handler(handler);
    let running = Service::new("s").subscribe(subscription).start(broker.clone()).await.unwrap();
    for n in 0..messages {
        running.publisher().publish(number(n)).await.unwrap();
        if n % 25 == 7 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            broker.cut();
        }
    }
    broker.idle().await;
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (seen, broker, running)
}

/// S47 and no loss, whatever happens.
#[tokio::test(start_paused = true)]
async fn under_duplicates_lost_acknowledgements_failures_and_cuts_no_message_is_lost() {
    for seed in 0..20 {
        let (seen, broker, running) = under_chaos(seed, 200).await;
        let missing: Vec<_> = (0..200).filter(|n| !seen.contains_key(n)).collect();
        assert!(missing.is_empty(), "seed {seed}: {missing:?} are lost");
        let again = seen.values().filter(|times| **times > 1).count();
        assert!(again > 20, "seed {seed}: chaos repeated {again} messages only");
        assert!(broker.dead_letters("s.q").is_empty());

        let counts = running.stats().total();
        assert!(counts.is_conserved(), "seed {seed}: {counts:?}");
        assert_eq!(counts.in_flight, 0);
        assert_eq!(counts.succeeded, seen.values().sum::<usize>() as u64);
        assert!(counts.settlements_lost > 0, "seed {seed}: {counts:?}");
        running.stop().await.unwrap();
        let state = broker.queue("s.q").unwrap();
        assert_eq!((state.ready, state.unacked, state.delayed, state.consumers), (0, 0, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_faults() {
    let (first, _, running) = under_chaos(3, 200).await;
    running.stop().await.unwrap();
    let (second, _, running) = under_chaos(3, 200).await;
    running.stop().await.unwrap();
    let (other, _, running) = under_chaos(4, 200).await;
    running.stop().await.unwrap();
    assert_eq!(first, second);
    assert_ne!(first, other);
}
