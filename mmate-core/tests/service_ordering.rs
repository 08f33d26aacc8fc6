//! Lanes: the messages of one key in order, whatever befalls them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::conformance::disorder;
use mmate_core::{
    Attempt, Chaos, Context, CorrelationId, FromContext, HandlerError, InProcess, Json, Message,
    MissingKey, OrderKey, Outcome, Outgoing, RetryPolicy, Running, Service, ServiceError,
    Subscription, SubscriptionBuilder,
};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// The account that a message is about.
#[derive(Clone, Debug, PartialEq)]
struct Account(String);

impl FromContext for Account {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        let account = context.message().headers.text("account-id").unwrap_or("none");
        Ok(Self(account.to_owned()))
    }
}

type Log = Arc<Mutex<Vec<(String, u64)>>>;

fn accounts() -> SubscriptionBuilder {
    Subscription::per_service("book", ["account.#"])
        .ordered_by(OrderKey::header("account-id"))
        .retry(RetryPolicy::fixed(SECOND).max_attempts(3))
}

async fn start(broker: &InProcess, subscription: Subscription) -> Running {
    Service::new("bank").subscribe(subscription).start(broker.clone()).await.unwrap()
}

async fn publish(running: &Running, account: &str, n: u64) {
    let event = Outgoing::event("account.booked.eu", "Booked", &n).header("account-id", account);
    running.publisher().publish(event).await.unwrap();
}

/// A handler that notes what took effect, after what the script says.
fn noting<F>(log: &Log, script: F) -> impl mmate_core::Handler<(Account, Attempt, Json<u64>)>
where
    F: Fn(&str, u64, u32) -> Result<Outcome, HandlerError> + Send + Sync + 'static,
{
    let (log, script) = (Arc::clone(log), Arc::new(script));
    move |Account(account): Account, Attempt(attempt): Attempt, Json(n): Json<u64>| {
        let (log, script) = (Arc::clone(&log), Arc::clone(&script));
        async move {
            sleep(Duration::from_millis(10)).await;
            let outcome = script(&account, n, attempt)?;
            if outcome == Outcome::Done {
                log.lock().unwrap().push((account, n));
            }
            Ok::<_, HandlerError>(outcome)
        }
    }
}

fn reason(letter: &Message) -> String {
    letter.headers.text("x-mmate-reason").unwrap_or_default().to_owned()
}

/// A poisonous message holds its lane for its attempts and no longer.
#[tokio::test(start_paused = true)]
async fn when_its_attempts_are_used_up_a_message_is_dead_lettered_and_its_lane_goes_on() {
    let (broker, log) = (InProcess::new(), Log::default());
    let handler = noting(&log, |account, n, _| match (account, n) {
        ("a", 0) => Err(HandlerError::retryable("never")),
        _ => Ok(Outcome::Done),
    });
    let running = start(&broker, accounts().handler(handler)).await;
    let begin = Instant::now();
    for n in 0..3 {
        publish(&running, "a", n).await;
    }
    broker.idle().await;
    assert!(begin.elapsed() >= 2 * SECOND, "it waited between its three attempts");
    assert_eq!(*log.lock().unwrap(), [("a".to_owned(), 1), ("a".to_owned(), 2)]);
    let counts = running.stats().total();
    assert_eq!((counts.fetched, counts.retried, counts.dead_lettered), (5, 2, 1));
    assert!(counts.is_conserved());
    let letters = broker.messages("dlq.bank.book");
    assert_eq!(letters.iter().map(reason).collect::<Vec<_>>(), ["attempts-exhausted"]);
    assert_eq!(letters[0].headers.int("x-mmate-attempts"), Some(3));
}

/// A deferral waits in its lane too, and counts as no attempt.
#[tokio::test(start_paused = true)]
async fn a_deferred_message_holds_its_lane_and_keeps_its_attempt() {
    let (broker, log) = (InProcess::new(), Log::default());
    let seen = Arc::new(Mutex::new(0));
    let handler = noting(&log, move |_, n, attempt| {
        assert_eq!(attempt, 1);
        let mut seen = seen.lock().unwrap();
        *seen += u32::from(n == 0);
        if n == 0 && *seen < 5 { Ok(Outcome::Defer { after: SECOND }) } else { Ok(Outcome::Done) }
    });
    let running = start(&broker, accounts().handler(handler)).await;
    for n in 0..2 {
        publish(&running, "a", n).await;
    }
    broker.idle().await;
    assert_eq!(*log.lock().unwrap(), [("a".to_owned(), 0), ("a".to_owned(), 1)]);
    assert_eq!(running.stats().total().deferred, 4);
}

/// A lane that waits holds no slot: one handler at a time is enough for the others to go on.
#[tokio::test(start_paused = true)]
async fn a_lane_that_waits_leaves_its_slot_to_the_others() {
    let (broker, log) = (InProcess::new(), Log::default());
    let handler = noting(&log, |account, n, attempt| match (account, n, attempt) {
        ("a", 0, 1) => Err(HandlerError::retryable("later").retry_after(60 * SECOND)),
        _ => Ok(Outcome::Done),
    });
    let running = start(&broker, accounts().concurrency(1).handler(handler)).await;
    let begin = Instant::now();
    for n in 0..2 {
        for account in ["a", "b", "c"] {
            publish(&running, account, n).await;
        }
    }
    while log.lock().unwrap().len() < 4 {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(begin.elapsed() < SECOND, "b and c did not wait for a");
    broker.idle().await;
    let log = log.lock().unwrap();
    assert_eq!(disorder(&log), []);
    assert_eq!(log.len(), 6);
}

/// A blocked lane can fill the prefetch; until then the other keys within it run.
#[tokio::test(start_paused = true)]
async fn a_blocked_lane_fills_the_prefetch_and_no_more() {
    let (broker, log) = (InProcess::new(), Log::default());
    let handler = noting(&log, |account, n, attempt| match (account, n, attempt) {
        ("a", 0, 1) => Err(HandlerError::retryable("later").retry_after(60 * SECOND)),
        _ => Ok(Outcome::Done),
    });
    let four = NonZeroU16::new(4).unwrap();
    let subscription = accounts().prefetch(four).concurrency(4).handler(handler);
    let running = start(&broker, subscription).await;
    let begin = Instant::now();
    for n in 0..3 {
        publish(&running, "a", n).await;
    }
    publish(&running, "b", 0).await;
    publish(&running, "a", 3).await;
    publish(&running, "b", 1).await;
    while log.lock().unwrap().len() < 2 {
        sleep(Duration::from_millis(100)).await;
    }
    // Four of a are held; b's second comes only when one of them is finished.
    assert_eq!(log.lock().unwrap()[0], ("b".to_owned(), 0));
    assert!(begin.elapsed() >= 60 * SECOND);
    broker.idle().await;
    assert_eq!(disorder(&log.lock().unwrap()), []);
    assert_eq!(broker.queue("bank.book").unwrap().ready, 0);
}

/// S36: what has no usable key is dead-lettered as malformed, and the others go on.
#[tokio::test(start_paused = true)]
async fn a_message_without_a_key_is_dead_lettered_and_the_consumer_goes_on() {
    let (broker, log) = (InProcess::new(), Log::default());
    let subscription = accounts().handler(noting(&log, |_, _, _| Ok(Outcome::Done)));
    let running = start(&broker, subscription).await;
    let publisher = running.publisher();
    publisher.publish(Outgoing::event("account.a.b", "Booked", &1)).await.unwrap();
    let odd = Outgoing::event("account.a.b", "Booked", &2).header("account-id", 1.5);
    publisher.publish(odd).await.unwrap();
    publish(&running, "a", 3).await;
    broker.idle().await;
    assert_eq!(*log.lock().unwrap(), [("a".to_owned(), 3)]);
    let letters = broker.messages("dlq.bank.book");
    let errors: Vec<_> = letters.iter().map(|l| l.headers.text("x-mmate-error").unwrap()).collect();
    assert_eq!(letters.iter().map(reason).collect::<Vec<_>>(), ["malformed", "malformed"]);
    assert!(
        errors.contains(&"nothing to put the message in order by: it has no header \"account-id\""),
        "{errors:?}"
    );
    let neither = "the header \"account-id\" holds neither text nor a whole number";
    assert!(errors.contains(&neither), "{errors:?}");
    assert!(running.stats().total().is_conserved());
}

/// S36, for functions: an error and a panic.
#[tokio::test(start_paused = true)]
async fn a_key_function_that_fails_or_panics_dead_letters_and_the_consumer_goes_on() {
    let (broker, log) = (InProcess::new(), Log::default());
    let key = OrderKey::from_fn(|context| match context.message().headers.text("account-id") {
        Some("panic") => panic!("a bad day"),
        Some("a") => Ok("a".to_owned()),
        _ => Err("no such account"),
    });
    let subscription =
        accounts().ordered_by(key).handler(noting(&log, |_, _, _| Ok(Outcome::Done)));
    let running = start(&broker, subscription).await;
    for account in ["panic", "unknown", "a"] {
        publish(&running, account, 1).await;
    }
    broker.idle().await;
    assert_eq!(*log.lock().unwrap(), [("a".to_owned(), 1)]);
    let letters = broker.messages("dlq.bank.book");
    assert_eq!(letters.iter().map(reason).collect::<Vec<_>>(), ["malformed", "malformed"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_key_has_a_lane_of_its_own_if_that_is_asked_for() {
    let (broker, log) = (InProcess::new(), Log::default());
    let key = OrderKey::header("account-id").missing(MissingKey::Unordered);
    let handler = noting(&log, |_, n, attempt| match (n, attempt) {
        (0, 1) => Err(HandlerError::retryable("later")),
        _ => Ok(Outcome::Done),
    });
    let running = start(&broker, accounts().ordered_by(key).handler(handler)).await;
    for n in 0..3 {
        let event = Outgoing::event("account.a.b", "Booked", &n);
        running.publisher().publish(event).await.unwrap();
    }
    broker.idle().await;
    let numbers: Vec<_> = log.lock().unwrap().iter().map(|(_, n)| *n).collect();
    assert_eq!(numbers.len(), 3);
    assert_eq!(numbers[2], 0, "the others did not wait for the first");
}

/// Each kind of key parts the messages as it says: what it parts runs at the same time.
#[tokio::test(start_paused = true)]
async fn every_kind_of_key_makes_its_lanes() {
    #[derive(serde::Serialize)]
    struct Payload {
        account: Id,
    }
    #[derive(serde::Serialize)]
    struct Id {
        id: u64,
    }
    // Two lanes of two messages: 2 s if they are lanes, 4 s if it is one, 1 s if there is no order.
    for key in [
        OrderKey::header("account-id"),
        OrderKey::correlation_id(),
        OrderKey::topic(),
        OrderKey::topic_word(2),
        OrderKey::json_pointer("/account/id"),
        OrderKey::from_fn(|context| Ok::<_, &str>(context.routing_key().to_owned())),
    ] {
        let broker = InProcess::new();
        let what = format!("{key:?}");
        let subscription =
            Subscription::per_service("book", ["account.#"]).ordered_by(key).handler(async || {
                sleep(SECOND).await;
                Ok::<(), HandlerError>(())
            });
        let running = start(&broker, subscription).await;
        let begin = Instant::now();
        for id in [1_u64, 2, 1, 2] {
            let topic = format!("account.booked.r{id}");
            let event = Outgoing::event(topic, "Booked", &Payload { account: Id { id } })
                .header("account-id", i64::try_from(id).unwrap())
                .correlation_id(CorrelationId::parse(format!("c{id}")).unwrap());
            running.publisher().publish(event).await.unwrap();
        }
        broker.idle().await;
        assert_eq!(begin.elapsed().as_secs(), 2, "{what}");
        assert_eq!(running.stats().total().succeeded, 4, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_cannot_be_looked_into_is_dead_lettered_for_what_it_is() {
    let (broker, log) = (InProcess::new(), Log::default());
    let subscription = accounts()
        .ordered_by(OrderKey::json_pointer("/account/id"))
        .handler(noting(&log, |_, _, _| Ok(Outcome::Done)));
    let running = start(&broker, subscription).await;
    publish(&running, "a", 1).await;
    let payload = serde_json::json!({"account": {"id": []}});
    let listed = Outgoing::event("account.a.b", "Booked", &payload);
    running.publisher().publish(listed).await.unwrap();
    broker.idle().await;
    let letters = broker.messages("dlq.bank.book");
    assert_eq!(letters.iter().map(reason).collect::<Vec<_>>(), ["malformed", "malformed"]);
}

/// What cannot be kept up is refused, with both numbers and the mend.
#[tokio::test]
async fn a_wait_that_the_broker_would_not_stand_is_refused_at_the_start() {
    let hour = RetryPolicy::exponential(SECOND, 3600 * SECOND).max_attempts(20);
    let started = Service::new("bank")
        .subscribe(accounts().retry(hour).handler(async || Ok::<(), HandlerError>(())))
        .start(InProcess::new())
        .await;
    let Err(ServiceError::Config(errors)) = started else { panic!("it cannot work") };
    let text = errors[0].to_string();
    for part in ["\"book\" is ordered", "up to 3600s", "safe for 1200s", "lower the policy's"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused_at_the_start() {
    for (key, part) in [
        (OrderKey::json_pointer("account/id"), "does not begin with /"),
        (OrderKey::header(""), "a header's name is not empty"),
    ] {
        let subscription = accounts().ordered_by(key).handler(async || Ok::<(), HandlerError>(()));
        let started = Service::new("bank").subscribe(subscription).start(InProcess::new()).await;
        let error = started.map(drop).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// What the drain drops is counted, and nothing is counted twice.
#[tokio::test(start_paused = true)]
async fn a_drain_that_runs_out_of_time_gives_the_lane_back_as_it_was() {
    let broker = InProcess::new();
    let subscription = accounts().handler(async || {
        sleep(3600 * SECOND).await;
        Ok::<(), HandlerError>(())
    });
    let service = Service::new("bank").subscribe(subscription).drain_timeout(SECOND);
    let running = service.start(broker.clone()).await.unwrap();
    for n in 0..5 {
        publish(&running, "a", n).await;
    }
    while running.stats().total().in_flight < 1 {
        sleep(Duration::from_millis(1)).await;
    }
    let stats = running.stats().clone();
    running.stop().await.unwrap();
    let counts = stats.total();
    assert_eq!((counts.fetched, counts.deferred, counts.settlements_lost), (1, 1, 0));
    let messages = broker.messages("bank.book");
    let numbers: Vec<u64> = messages
        .iter()
        .map(|m| mmate_core::Envelope::from_json(m.body.clone()).unwrap().payload().unwrap())
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
}

/// Failures, deferrals, dropped acknowledgements and cuts at random: order is kept, nothing is
/// lost, and the counts are conserved at every look.
#[tokio::test(start_paused = true)]
async fn whatever_happens_no_message_overtakes_another_of_its_key() {
    const KEYS: u64 = 10;
    const EACH: u64 = 40;
    for seed in 0..20 {
        let (broker, log) = (InProcess::new(), Log::default());
        broker.chaos(Chaos::new().dropped_acks(0.05).seed(seed));
        let mut random = fastrand::Rng::with_seed(seed);
        let dice = Arc::new(Mutex::new(random.fork()));
        let handler = noting(&log, move |_, _, _| match dice.lock().unwrap().u32(0..10) {
            0 => Err(HandlerError::retryable("dice")),
            1 => Ok(Outcome::Defer { after: Duration::from_millis(70) }),
            _ => Ok(Outcome::Done),
        });
        let policy = RetryPolicy::fixed(Duration::from_millis(50)).max_attempts(100);
        let subscription = accounts().retry(policy).concurrency(4).handler(handler);
        let running = start(&broker, subscription).await;
        for n in 0..EACH {
            for key in 0..KEYS {
                publish(&running, &key.to_string(), n).await;
            }
            if random.u32(0..8) == 0 {
                sleep(Duration::from_millis(random.u64(0..200))).await;
                broker.cut();
            }
            assert!(running.stats().total().is_conserved());
        }
        broker.idle().await;
        let log = log.lock().unwrap();
        assert_eq!(disorder(&log), [], "seed {seed}");
        let all: std::collections::HashSet<_> = log.iter().collect();
        assert_eq!(all.len() as u64, KEYS * EACH, "seed {seed}");
        assert!(running.stats().total().is_conserved());
    }
}
