//! Messages that arrive in any order are handled in that of their numbers.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{
    Attempt, HandlerError, InProcess, Meta, OrderKey, Outgoing, RetryPolicy, Running, Service,
    ServiceError, Subscription,
};
use mmate_idempotency::sequence::{OnGap, Place, Resequencer, SequenceKey};
use mmate_idempotency::{MemoryStore, Tracked};
use tokio::time::{Instant, timeout};

const WAIT: Duration = Duration::from_secs(10);

/// What was handled, in its order: key and number.
type Handled = Arc<Mutex<Vec<(String, u64)>>>;

struct Stage {
    broker: InProcess,
    store: MemoryStore,
    handled: Handled,
}

impl Stage {
    fn new() -> Self {
        Self { broker: InProcess::new(), store: MemoryStore::new(), handled: Handled::default() }
    }

    fn resequencer() -> Resequencer {
        Resequencer::by(SequenceKey::headers("key", "number")).wait(WAIT)
    }

    async fn start(&self, concurrency: usize, resequencer: Resequencer) -> Running {
        self.try_start(concurrency, resequencer).await.unwrap()
    }

    async fn try_start(
        &self,
        concurrency: usize,
        resequencer: Resequencer,
    ) -> Result<Running, ServiceError> {
        let handled = Arc::clone(&self.handled);
        let handler = move |meta: Meta, Attempt(attempt): Attempt| {
            let handled = Arc::clone(&handled);
            let id = meta.id.unwrap().to_string();
            async move {
                let (key, number) = id.split_once('/').unwrap();
                if key == "flaky" && number == "2" && attempt == 1 {
                    return Err(HandlerError::retryable("this is part of the test"));
                }
                if key == "poison" && number == "2" {
                    return Err(HandlerError::permanent("this is part of the test"));
                }
                // Room for the others to overtake.
                tokio::task::yield_now().await;
                handled.lock().unwrap().push((key.to_owned(), number.parse().unwrap()));
                Ok(())
            }
        };
        let subscription = Subscription::per_service("q", ["said.#"])
            .prefetch(NonZeroU16::new(500).unwrap())
            .concurrency(concurrency)
            .retry(RetryPolicy::fixed(Duration::from_secs(1)))
            .middleware(resequencer)
            .idempotent(Tracked::new(self.store.clone()))
            .handler(handler);
        let service = Service::new("chat").subscribe(subscription);
        service.start(self.broker.clone()).await
    }

    async fn publish(&self, by: &Running, key: &str, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let message = Outgoing::event(format!("said.{key}"), "Said", "")
                .id_text(format!("{key}/{number}"))
                .header("key", key)
                .header("number", i64::try_from(number).unwrap());
            by.publisher().publish(message).await.unwrap();
        }
    }

    fn numbers(&self, key: &str) -> Vec<u64> {
        let handled = self.handled.lock().unwrap();
        handled.iter().filter(|(of, _)| of == key).map(|(_, number)| *number).collect()
    }

    async fn until_handled(&self, count: usize) {
        let all = async {
            while self.handled.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = timeout(Duration::from_secs(120), all).await;
        assert!(ended.is_ok(), "{:?}", self.handled.lock().unwrap());
    }
}

/// Twenty conversations at once, each message up to some twenty places from where it belongs; the
/// room for those that are held is not enough for all.
#[tokio::test(flavor = "multi_thread")]
async fn shuffled_messages_are_handled_in_the_order_of_their_numbers() {
    let stage = Stage::new();
    let resequencer = Stage::resequencer().most(60);
    let running = stage.start(64, resequencer.clone()).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut all: Vec<(u64, u64)> =
        (0..20).flat_map(|key| (1..=50).map(move |number| (key, number))).collect();
    let places: HashMap<_, _> =
        all.iter().map(|place| (*place, place.1 * 10 + random.u64(..200))).collect();
    all.sort_by_key(|place| places[place]);
    for (key, number) in all {
        stage.publish(&running, &format!("k{key}"), [number]).await;
    }
    stage.until_handled(1_000).await;
    for key in 0..20 {
        assert_eq!(stage.numbers(&format!("k{key}")), (1..=50).collect::<Vec<_>>(), "k{key}");
    }
    let counts = running.stats().total();
    assert!(counts.is_conserved(), "{counts:?}");
    assert_eq!((counts.succeeded, counts.dead_lettered), (1_000, 0));
    running.stop().await.unwrap();
    assert_eq!(resequencer.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn other_keys_go_on_while_one_waits_and_the_gap_is_given_up_after_the_limit() {
    let stage = Stage::new();
    let running = stage.start(16, Stage::resequencer()).await;
    let begin = Instant::now();
    stage.publish(&running, "a", [3, 4, 2]).await;
    stage.publish(&running, "b", [2, 1, 3]).await;
    stage.until_handled(3).await;
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(stage.numbers("b"), [1, 2, 3]);
    assert_eq!(stage.numbers("a"), [0; 0]);
    // The first of those that are there goes on, and the others come after it.
    stage.until_handled(6).await;
    assert!((WAIT..WAIT + Duration::from_secs(1)).contains(&begin.elapsed()), "{begin:?}");
    assert_eq!(stage.numbers("a"), [2, 3, 4]);
    // What is late is handled when it comes.
    stage.publish(&running, "a", [1]).await;
    stage.until_handled(7).await;
    stage.publish(&running, "a", [5]).await;
    stage.until_handled(8).await;
    assert_eq!(stage.numbers("a"), [2, 3, 4, 1, 5]);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_gap_may_be_dead_lettered_instead() {
    let stage = Stage::new();
    let running = stage.start(8, Stage::resequencer().on_gap(OnGap::DeadLetter)).await;
    stage.publish(&running, "a", [1, 3]).await;
    stage.broker.idle().await;
    assert_eq!(stage.numbers("a"), [1]);
    let letters = running.dead_letters("q").unwrap().list(10).await.unwrap();
    assert_eq!(letters.len(), 1);
    let error = letters[0].error().unwrap_or_default();
    assert!(error.contains("number 3") && error.contains("number 2 did not"), "{error}");
    stage.publish(&running, "a", [2]).await;
    stage.until_handled(2).await;
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_message_keeps_its_turn_and_a_dead_one_does_not() {
    let stage = Stage::new();
    let running = stage.start(8, Stage::resequencer()).await;
    let begin = Instant::now();
    stage.publish(&running, "flaky", [1, 2, 3]).await;
    stage.publish(&running, "poison", [1, 2, 3]).await;
    stage.until_handled(5).await;
    assert_eq!(stage.numbers("flaky"), [1, 2, 3]);
    assert_eq!(stage.numbers("poison"), [1, 3]);
    assert!(begin.elapsed() < Duration::from_secs(5), "the retry came after a second");
    running.stop().await.unwrap();
}

/// Duplicates go through to the strategy, early or late.
#[tokio::test(start_paused = true)]
async fn duplicates_are_the_business_of_the_strategy() {
    let stage = Stage::new();
    let running = stage.start(8, Stage::resequencer()).await;
    stage.publish(&running, "a", [2, 2, 1, 1, 3, 2, 1]).await;
    stage.broker.idle().await;
    assert_eq!(stage.numbers("a"), [1, 2, 3]);
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.total()), (3, 4), "{counts:?}");
    running.stop().await.unwrap();
}

/// S49: what is held is not acknowledged, and is given back when the service stops.
#[tokio::test(start_paused = true)]
async fn what_is_held_goes_to_another_instance_when_this_one_stops_or_dies() {
    for dies in [true, false] {
        let stage = Stage::new();
        let first = stage.start(8, Stage::resequencer()).await;
        stage.publish(&first, "a", [2, 3]).await;
        let held = first.stats().clone();
        while held.total().fetched < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let begin = Instant::now();
        if dies {
            drop(first);
        } else {
            first.stop().await.unwrap();
        }
        assert!(begin.elapsed() < Duration::from_secs(1), "it does not wait for the predecessor");
        let second = stage.start(8, Stage::resequencer()).await;
        stage.publish(&second, "a", [1]).await;
        stage.until_handled(3).await;
        assert_eq!(stage.numbers("a"), [1, 2, 3]);
        second.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_again_resumes_where_it_is_told() {
    let stage = Stage::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&asked);
    let resequencer = Stage::resequencer().keys(2).resume_from(move |key| {
        told.lock().unwrap().push(key.clone());
        async move { Ok::<_, std::io::Error>((key == "a").then_some(57)) }
    });
    let running = stage.start(8, resequencer).await;
    let begin = Instant::now();
    stage.publish(&running, "a", [59, 58]).await;
    stage.publish(&running, "b", [2, 1]).await;
    stage.until_handled(4).await;
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!((stage.numbers("a"), stage.numbers("b")), (vec![58, 59], vec![1, 2]));
    assert_eq!(asked.lock().unwrap().len(), 2, "each key once");
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_has_no_place_is_handled_as_it_comes_and_half_a_place_is_none() {
    let stage = Stage::new();
    let own = SequenceKey::from_fn(|context| {
        let number = context.message().headers.int("line");
        let place = |number| Place { key: "lines".to_owned(), number };
        number.map(|number| u64::try_from(number).map(place)).transpose()
    });
    let running = stage.start(8, Resequencer::by(own)).await;
    stage.publish(&running, "a", [9]).await;
    stage.until_handled(1).await;
    running.stop().await.unwrap();

    let running = stage.start(8, Stage::resequencer()).await;
    for (id, message) in [
        ("no/1", Outgoing::event("said.no", "Said", "").header("key", "no")),
        ("no/2", Outgoing::event("said.no", "Said", "").header("number", 2_i64)),
        (
            "no/3",
            Outgoing::event("said.no", "Said", "").header("key", "no").header("number", 0_i64),
        ),
    ] {
        running.publisher().publish(message.id_text(id)).await.unwrap();
    }
    stage.broker.idle().await;
    assert_eq!(running.stats().total().dead_lettered, 3);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn settings_that_could_stall_are_refused_with_the_mend() {
    let stage = Stage::new();
    let wrong = [
        (stage.try_start(1, Stage::resequencer()).await, "raise the concurrency"),
        (stage.try_start(8, Stage::resequencer().most(8)).await, "hold fewer"),
    ];
    for (started, mend) in wrong {
        let error = started.unwrap_err().to_string();
        assert!(error.contains(mend), "{error}");
    }
    let subscription = Subscription::per_service("q", ["said.#"])
        .concurrency(8)
        .ordered_by(OrderKey::header("key"))
        .middleware(Stage::resequencer())
        .handler(async || Ok::<(), HandlerError>(()));
    let started = Service::new("chat").subscribe(subscription).start(stage.broker.clone()).await;
    let error = started.unwrap_err().to_string();
    assert!(error.contains("ordered_by"), "{error}");
}
