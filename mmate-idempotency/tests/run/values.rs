//! Values, and what is kept of them.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use mmate_idempotency::store::RecordKey;
use mmate_idempotency::{Ran, RunError};

use crate::house::{Failure, House, key, on_every_store};

on_every_store! {
    a_value_is_replayed_to_another_process_and_after_a_restart,
    bytes_are_kept_as_they_are,
    a_value_that_is_too_large_is_told_and_its_work_does_not_run_again,
    a_value_that_json_cannot_say_is_told_and_its_work_does_not_run_again,
    a_value_of_another_type_is_told,
    one_id_in_two_scopes_is_two_keys,
    after_the_window_the_work_runs_again,
}

/// S6, S52
async fn a_value_is_replayed_to_another_process_and_after_a_restart(house: House) {
    let before = house.instance().await;
    let value = vec!["ä".to_owned(), "\u{0}".to_owned(), "🙂".repeat(1000)];
    let run = |at: &mmate_idempotency::Idempotent, value: Vec<String>| {
        at.run(key("a"), None, async { Ok::<_, Failure>(value) }).into_future()
    };
    assert_eq!(run(&before, value.clone()).await.unwrap(), Ran::Fresh(value.clone()));
    drop(before);
    let after = house.instance().await;
    assert_eq!(run(&after, Vec::new()).await.unwrap(), Ran::Replayed(value));
}

async fn bytes_are_kept_as_they_are(house: House) {
    let instance = house.instance().await;
    for (id, bytes) in [("none", Bytes::new()), ("all", (0..=255).collect())] {
        let run =
            |bytes: Bytes| instance.run_bytes(key(id), None, async { Ok::<_, Failure>(bytes) });
        assert_eq!(run(bytes.clone()).await.unwrap(), Ran::Fresh(bytes.clone()));
        assert_eq!(run(Bytes::from_static(b"other")).await.unwrap(), Ran::Replayed(bytes));
    }
}

async fn a_value_that_is_too_large_is_told_and_its_work_does_not_run_again(house: House) {
    let instance = house.instance().await.value_limit(100);
    let run = |id: &str, length: usize| {
        let runs = house.runs.clone();
        let work = async move {
            runs.next();
            Ok::<_, Failure>("x".repeat(length))
        };
        instance.run(key(id), None, work).into_future()
    };
    // Two quotes belong to it.
    assert!(run("just", 98).await.is_ok());
    let error = run("over", 99).await.unwrap_err();
    let RunError::TooLarge { bytes, limit, value, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*bytes, *limit), (101, 100));
    assert_eq!(*value, format!("{:?}", "x".repeat(99)));
    let text = error.to_string();
    assert!(text.contains("101") && text.contains("100"), "{text}");
    assert!(matches!(run("over", 1).await, Err(RunError::ValueMissing { since: Some(_), .. })));
    assert_eq!(house.runs.count(), 2);
}

async fn a_value_that_json_cannot_say_is_told_and_its_work_does_not_run_again(house: House) {
    let instance = house.instance().await;
    let run = || {
        let runs = house.runs.clone();
        let work = async move {
            runs.next();
            Ok::<_, Failure>(HashMap::from([(vec![1_u8, 2], 3_u8)]))
        };
        instance.run(key("a"), None, work).into_future()
    };
    assert!(matches!(run().await, Err(RunError::NotRepresentable { .. })));
    assert!(matches!(run().await, Err(RunError::ValueMissing { .. })));
    assert_eq!(house.runs.count(), 1);
}

async fn a_value_of_another_type_is_told(house: House) {
    let instance = house.instance().await;
    instance.run(key("a"), None, async { Ok::<_, Failure>("text".to_owned()) }).await.unwrap();
    let number = instance.run(key("a"), None, async { Ok::<u64, Failure>(1) }).await;
    assert!(matches!(number, Err(RunError::Undecodable { .. })), "{number:?}");
}

/// S31
async fn one_id_in_two_scopes_is_two_keys(house: House) {
    let instance = house.instance().await;
    for scope in ["customer-1", "customer-2"] {
        let key = RecordKey::new(scope, "a").unwrap();
        let got = instance.run(key, None, async { Ok::<_, Failure>(scope.to_owned()) }).await;
        assert_eq!(got.unwrap(), Ran::Fresh(scope.to_owned()));
    }
}

/// S37
async fn after_the_window_the_work_runs_again(mut house: House) {
    let clock = house.clock();
    let instance = house.instance().await;
    let run = |value: u8| instance.run(key("a"), None, async move { Ok::<_, Failure>(value) });
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(run(1).await.unwrap(), Ran::Fresh(1));
    clock.advance(6 * day);
    assert_eq!(run(2).await.unwrap(), Ran::Replayed(1));
    clock.advance(day);
    assert_eq!(run(3).await.unwrap(), Ran::Fresh(3));
}
