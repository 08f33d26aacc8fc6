//! Numbers without gaps, from Redis.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use mmate_core::{
    Attempt, CorrelationId, HandlerError, InProcess, Json, Meta, Outgoing, RetryPolicy, Service,
    State, Subscription,
};
use mmate_idempotency::sequence::RedisSequence;
use mmate_idempotency::store::StoreErrorKind;
use mmate_idempotency::{Key, Locked, RedisStore};
use mmate_test_support::{Redis, RedisCluster, unique};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::house::LIMIT;
use crate::proxy::{Answers, Proxy};

/// Four instances ask for the numbers of the same ids, in orders of their own.
async fn each_id_has_one_number_and_there_is_no_gap(stores: [RedisStore; 4]) {
    const IDS: usize = 60;
    let name = unique("chat");
    let mut askers = JoinSet::new();
    for (seed, store) in stores.into_iter().enumerate() {
        let sequence = RedisSequence::new(&store, name.as_str());
        askers.spawn(async move {
            let mut asked: Vec<_> = (0..3)
                .flat_map(|key| (0..IDS).map(move |id| (format!("room-{key}"), format!("id-{id}"))))
                .collect();
            fastrand::Rng::with_seed(seed as u64).shuffle(&mut asked);
            let mut numbers = HashMap::new();
            for (key, id) in asked {
                let number = sequence.next(&key, &id).await.unwrap();
                numbers.insert((key, id), number);
            }
            numbers
        });
    }
    let answers = askers.join_all().await;
    assert!(answers.iter().all(|numbers| *numbers == answers[0]));
    let mut given: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for ((key, _), number) in &answers[0] {
        given.entry(key).or_default().push(*number);
    }
    assert_eq!(given.len(), 3);
    for (key, mut numbers) in given {
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=60).collect::<Vec<_>>(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_id_has_one_number_and_there_is_no_gap_on_one_server() {
    let url = mmate_test_support::redis_url();
    let store = async || RedisStore::connect(&url).await.unwrap();
    let stores = [store().await, store().await, store().await, store().await];
    each_id_has_one_number_and_there_is_no_gap(stores).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_id_has_one_number_and_there_is_no_gap_in_a_cluster() {
    let cluster = RedisCluster::start(3).unwrap();
    let store = async || RedisStore::cluster(cluster.urls()).await.unwrap();
    let stores = [store().await, store().await, store().await, store().await];
    each_id_has_one_number_and_there_is_no_gap(stores).await;
    let keys = |node: &Redis| node.ask("DBSIZE").unwrap().parse::<usize>().unwrap();
    let spread: Vec<usize> = cluster.nodes().iter().map(keys).collect();
    // Three rooms: each has its counter and the numbers of its ids on one node.
    assert_eq!(spread.iter().sum::<usize>(), 3 * 61, "{spread:?}");
    assert!(spread.iter().all(|keys| keys % 61 == 0), "{spread:?}");
}

/// S15: whoever did not hear the number asks again, and it is the same one.
#[tokio::test]
async fn an_answer_that_is_lost_costs_no_number() {
    let redis = Redis::start().unwrap();
    let proxy = Proxy::to(redis.port());
    let store = RedisStore::connect(proxy.url()).await.unwrap();
    let store = store.response_timeout(Duration::from_millis(500));
    let sequence = RedisSequence::new(&store, "chat");
    assert_eq!(sequence.next("room", "before").await.unwrap(), 1);
    for (lost, expected) in [(Answers::CutOnce, 2), (Answers::SwallowOnce, 3)] {
        let id = format!("{lost:?}");
        proxy.answers(lost);
        let error = sequence.next("room", &id).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
        assert!(error.to_string().contains("take the next number"), "{error}");
        let asking = async {
            loop {
                if let Ok(number) = sequence.next("room", &id).await {
                    return number;
                }
            }
        };
        assert_eq!(tokio::time::timeout(LIMIT, asking).await.unwrap(), expected);
        assert_eq!(sequence.last("room").await.unwrap(), expected);
    }
    // A server that has forgotten the script learns it again.
    redis.ask("SCRIPT FLUSH").unwrap();
    assert_eq!(sequence.next("room", "after").await.unwrap(), 4);
}

#[tokio::test]
async fn only_the_last_number_can_be_given_back() {
    let store = RedisStore::connect(mmate_test_support::redis_url()).await.unwrap();
    let sequence = RedisSequence::new(&store, unique("chat"));
    for (id, number) in [("a", 1), ("b", 2)] {
        assert_eq!(sequence.next("room", id).await.unwrap(), number);
    }
    assert!(!sequence.give_back("room", "a").await.unwrap());
    assert!(!sequence.give_back("room", "unknown").await.unwrap());
    assert!(!sequence.give_back("another room", "b").await.unwrap());
    assert!(sequence.give_back("room", "b").await.unwrap());
    assert!(!sequence.give_back("room", "b").await.unwrap());
    assert_eq!(sequence.last("room").await.unwrap(), 1);
    assert_eq!(sequence.next("room", "c").await.unwrap(), 2);
    assert_eq!(sequence.next("room", "b").await.unwrap(), 3);
}

/// S46: what a server forgot is somewhere else.
#[tokio::test]
async fn a_key_can_be_raised_to_where_it_was() {
    let store = RedisStore::connect(mmate_test_support::redis_url()).await.unwrap();
    let sequence = RedisSequence::new(&store, unique("chat"));
    assert_eq!(sequence.last("room").await.unwrap(), 0);
    assert_eq!(sequence.raise("room", 41).await.unwrap(), 41);
    assert_eq!(sequence.raise("room", 7).await.unwrap(), 41);
    assert_eq!(sequence.raise("room", -1).await.unwrap(), 41);
    assert_eq!(sequence.next("room", "a").await.unwrap(), 42);
    let largest = (1 << 53) - 1;
    assert_eq!(sequence.raise("far", largest).await.unwrap(), largest);
    assert_eq!(sequence.next("far", "a").await.unwrap(), largest + 1);
    let error = sequence.raise("room", largest + 1).await.unwrap_err();
    assert!(error.to_string().contains("counts to"), "{error}");
}

/// S36, F48, F50
#[tokio::test]
async fn no_name_key_and_id_are_those_of_another() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let texts = ["", "a", "A", "a ", ":", "a:1:a", "1:a", "a:a", "}", "{a}", "ä", "a\r\nFLUSHALL"];
    let mut firsts = 0;
    for store in [store.clone(), store.clone().prefix("other").unwrap()] {
        for name in texts {
            for key in texts {
                let sequence = RedisSequence::new(&store, name);
                for (number, id) in (1..).zip(texts) {
                    let given = sequence.next(key, id).await.unwrap();
                    assert_eq!(given, number, "{name:?} {key:?} {id:?}");
                }
                firsts += 1;
            }
        }
    }
    // A counter, and a number for each id.
    let keys = firsts * (1 + texts.len());
    assert_eq!(redis.ask("DBSIZE").unwrap(), keys.to_string());
    let long = "x".repeat(256);
    let sequence = RedisSequence::new(&store, "chat");
    for (key, id) in [(&*long, "a"), ("a", &*long), ("a\0", "a"), ("a", "a\0")] {
        let error = sequence.next(key, id).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Permanent);
        assert!(error.to_string().contains("255 bytes at most"), "{error}");
    }
}

#[tokio::test]
async fn an_id_keeps_its_number_for_the_window_after_it_was_asked_for() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let window = Duration::from_secs(3600);
    let sequence = RedisSequence::new(&store, "chat").window(window);
    sequence.next("room", "a").await.unwrap();
    let id = redis.ask("KEYS *:a").unwrap();
    assert!(id.ends_with("}:sequence:4:chat:4:room:a"), "{id}");
    let left = || redis.ask(&format!("TTL {id}")).unwrap().parse::<u64>().unwrap();
    assert!((3590..=3600).contains(&left()));
    redis.ask(&format!("EXPIRE {id} 10")).unwrap();
    assert_eq!(sequence.next("room", "a").await.unwrap(), 1);
    assert!((3590..=3600).contains(&left()));
    // The counter stays for good.
    let counter = id.trim_end_matches(":a");
    assert_eq!(redis.ask(&format!("TTL {counter}")).unwrap(), "-1");
}

/// Messages of one conversation, under its lock: what fails keeps its number for the next attempt,
/// what fails for good gives it back, and so there is no gap among what was delivered.
#[tokio::test(flavor = "multi_thread")]
async fn under_a_lock_what_is_delivered_has_no_gap() {
    let store = RedisStore::connect(mmate_test_support::redis_url()).await.unwrap();
    let sequence = RedisSequence::new(&store, unique("chat"));
    let (delivered, mut deliveries) = mpsc::unbounded_channel::<i64>();
    let handler = |Json(text): Json<String>,
                   meta: Meta,
                   Attempt(attempt): Attempt,
                   State((numbers, delivered)): State<(
        RedisSequence,
        mpsc::UnboundedSender<i64>,
    )>| async move {
        let id = meta.id.map(|id| id.to_string()).unwrap_or_default();
        let number = numbers.next("room", &id).await?;
        match (text.as_str(), attempt) {
            ("flaky", 1) => return Err(HandlerError::retryable("this is part of the test")),
            ("bad", _) => {
                assert!(numbers.give_back("room", &id).await?);
                return Err(HandlerError::permanent("this is part of the test"));
            }
            _ => {}
        }
        delivered.send(number).map_err(HandlerError::retryable)
    };
    let broker = InProcess::new();
    let lock = Locked::by(store, Key::correlation_and_type()).wait(Duration::from_secs(10));
    let subscription = Subscription::per_service("say", ["said.#"])
        .retry(RetryPolicy::fixed(Duration::from_millis(10)))
        .middleware(lock)
        .handler(handler);
    let service = Service::new(unique("chat")).state((sequence, delivered)).subscribe(subscription);
    let running = service.start(broker.clone()).await.unwrap();
    for round in 0..10 {
        for text in ["calm", "flaky", "bad", "calm"] {
            let message = Outgoing::event("said.room", "Said", text)
                .correlation_id("room".parse::<CorrelationId>().unwrap())
                .id_text(format!("{round}-{text}"));
            running.publisher().publish(message).await.unwrap();
        }
    }
    broker.idle().await;
    running.stop().await.unwrap();
    let mut numbers = Vec::new();
    while let Some(number) = deliveries.recv().await {
        numbers.push(number);
    }
    numbers.sort_unstable();
    // Two calm messages of a round have one id, and so one number.
    numbers.dedup();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}
