//! Rows written in transactions of one's own, and what becomes of them.

use std::time::Duration;

use mmate_core::{HeaderValue, Outgoing, RetryPolicy};
use mmate_idempotency::{Outbox, OutboxError, OutboxMessage};

use crate::bench::{Bench, SINK, arrived, keyed, make_queue, note, until};
use crate::database::{TestDatabase, in_every_database};

in_every_database! {
    what_is_committed_is_sent_and_what_is_rolled_back_is_not,
    a_message_arrives_as_it_was_written,
    what_no_queue_takes_is_given_up_and_sent_when_somebody_says_so,
    what_cannot_be_sent_at_all_is_given_up_at_once_and_can_be_discarded,
    a_key_waits_for_its_message_that_failed_and_others_do_not,
    instances_that_make_the_table_at_once_all_find_it,
    a_table_of_another_shape_is_told,
    keys_differ_by_case_and_space_and_accent,
}

/// S24
async fn what_is_committed_is_sent_and_what_is_rolled_back_is_not<DB: TestDatabase>() {
    let bench = Bench::<DB>::new().await;
    let outbox = bench.outbox();
    let mut ids = Vec::new();
    for n in 0..3 {
        let mut tx = bench.place.pool.begin().await.unwrap();
        ids.push(outbox.publish_in(&mut tx, note(&format!("kept {n}"))).await.unwrap());
        tx.commit().await.unwrap();
        let mut tx = bench.place.pool.begin().await.unwrap();
        outbox.publish_in(&mut tx, note("not kept")).await.unwrap();
        tx.rollback().await.unwrap();
    }
    assert_eq!(bench.rows().await, 3);
    let sending = bench.send_with(outbox).await;
    bench.emptied().await;
    sending.abort();
    let mut arrived: Vec<_> = bench.arrived().into_iter().map(|a| (a.payload, a.id)).collect();
    arrived.sort();
    let expected: Vec<_> =
        ids.iter().enumerate().map(|(n, id)| (format!("kept {n}"), id.to_string())).collect();
    assert_eq!(arrived, expected);
}

async fn a_message_arrives_as_it_was_written<DB: TestDatabase>() {
    let bench = Bench::<DB>::new().await;
    let outbox = bench.outbox().source("shop");
    let long = "🦀'\"\\\u{1}".repeat(20_000);
    let message = Outgoing::to_queue(SINK, "Näte", &long)
        .id_text("an id ' with \" 🦀 ")
        .header("bytes", HeaderValue::Bytes(vec![0, 255].into()))
        .priority(3);
    let mut tx = bench.place.pool.begin().await.unwrap();
    outbox.publish_in(&mut tx, OutboxMessage::new(message).key("ключ ")).await.unwrap();
    tx.commit().await.unwrap();
    let sending = bench.send_with(outbox).await;
    bench.emptied().await;
    sending.abort();
    let message = &bench.broker.messages(SINK)[0];
    assert_eq!(message.properties.message_id.as_deref(), Some("an id ' with \" 🦀 "));
    assert_eq!(message.properties.message_type.as_deref(), Some("Näte"));
    assert_eq!(message.properties.app_id.as_deref(), Some("shop"));
    assert_eq!(message.properties.priority, Some(3));
    assert_eq!(message.headers.value("bytes"), Some(&HeaderValue::Bytes(vec![0, 255].into())));
    assert_eq!(bench.payloads(), [long]);
}

async fn what_no_queue_takes_is_given_up_and_sent_when_somebody_says_so<DB: TestDatabase>() {
    let bench = Bench::<DB>::new().await;
    let policy = RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(3);
    let outbox = bench.outbox().retry_policy(policy);
    let mut tx = bench.place.pool.begin().await.unwrap();
    let message = OutboxMessage::new(Outgoing::to_queue("later", "Note", "late")).key("k");
    let id = outbox.publish_in(&mut tx, message).await.unwrap();
    outbox.publish_in(&mut tx, keyed("k", "goes on")).await.unwrap();
    tx.commit().await.unwrap();
    let sending = bench.send_with(outbox.clone()).await;
    until("a message is given up", async || !outbox.dead(10).await.unwrap().is_empty()).await;
    let dead = outbox.dead(10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert!(dead[0].is(&id));
    assert_eq!((dead[0].attempts, dead[0].message_type.as_str()), (3, "Note"));
    assert_eq!((dead[0].key.as_deref(), dead[0].destination.as_str()), (Some("k"), "queue later"));
    assert!(dead[0].error.contains("no queue takes"), "{}", dead[0].error);
    let lasted = dead[0].dead_at.duration_since(dead[0].written_at).unwrap();
    assert!(lasted >= Duration::from_millis(20), "{lasted:?}");
    assert!(dead[0].dead_at.elapsed().unwrap_or_default() < Duration::from_secs(60));
    // It does not keep its key waiting.
    until("the next arrives", async || bench.payloads() == ["goes on"]).await;
    make_queue(&bench.broker, "later").await;
    assert!(outbox.retry(&dead[0]).await.unwrap());
    assert!(!outbox.retry(&dead[0]).await.unwrap(), "it is not dead any more");
    bench.emptied().await;
    sending.abort();
    let late = arrived(&bench.broker, "later");
    assert_eq!((late.len(), late[0].id.as_str()), (1, id.as_str()));
}

async fn what_cannot_be_sent_at_all_is_given_up_at_once_and_can_be_discarded<DB: TestDatabase>() {
    let bench = Bench::<DB>::new().await;
    let outbox = bench.outbox();
    let mut tx = bench.place.pool.begin().await.unwrap();
    let minute = Duration::from_secs(60);
    let both = note("x").delay(minute).expires_after(minute);
    outbox.publish_in(&mut tx, both).await.unwrap();
    tx.commit().await.unwrap();
    let sending = bench.send_with(outbox.clone()).await;
    until("a message is given up", async || !outbox.dead(10).await.unwrap().is_empty()).await;
    sending.abort();
    let dead = outbox.dead(10).await.unwrap();
    assert_eq!(dead[0].attempts, 1);
    assert!(dead[0].error.contains("cannot expire"), "{}", dead[0].error);
    assert!(outbox.discard(&dead[0]).await.unwrap());
    assert!(!outbox.discard(&dead[0]).await.unwrap());
    assert_eq!(bench.rows().await, 0);
}

async fn a_key_waits_for_its_message_that_failed_and_others_do_not<DB: TestDatabase>() {
    let bench = Bench::<DB>::new().await;
    let policy = RetryPolicy::fixed(Duration::from_millis(300)).max_attempts(1_000);
    let outbox = bench.outbox().retry_policy(policy);
    let mut tx = bench.place.pool.begin().await.unwrap();
    let first = OutboxMessage::new(Outgoing::to_queue("later", "Note", "a1")).key("a");
    outbox.publish_in(&mut tx, first).await.unwrap();
    for message in [keyed("a", "a2"), keyed("b", "b1"), keyed("a", "a3"), keyed("b", "b2")] {
        outbox.publish_in(&mut tx, message).await.unwrap();
    }
    outbox.publish_in(&mut tx, note("alone")).await.unwrap();
    tx.commit().await.unwrap();
    let senders = [bench.send_with(outbox.clone()).await, bench.send_with(outbox).await];
    until("the others arrive", async || bench.payloads().len() == 3).await;
    let failed = "SELECT attempts FROM {table} ORDER BY seq LIMIT 1";
    until("it failed twice", async || DB::number(&bench.place, failed).await >= 2).await;
    let mut others = bench.payloads();
    assert!(others.iter().position(|p| p == "b1") < others.iter().position(|p| p == "b2"));
    others.sort();
    assert_eq!(others, ["alone", "b1", "b2"]);
    assert_eq!(bench.rows().await, 3);
    make_queue(&bench.broker, "later").await;
    bench.emptied().await;
    assert_eq!(bench.payloads()[3..], ["a2", "a3"]);
    senders.iter().for_each(|sender| sender.abort());
}

async fn instances_that_make_the_table_at_once_all_find_it<DB: TestDatabase>() {
    let place = DB::place().await;
    let making = (0..8).map(|_| {
        let outbox = Outbox::new(place.pool.clone()).table(&place.table).unwrap();
        tokio::spawn(async move { outbox.migrate().await })
    });
    for made in making.collect::<Vec<_>>() {
        made.await.unwrap().unwrap();
    }
    assert_eq!(DB::number(&place, "SELECT count(*) FROM {table}").await, 0);
}

async fn a_table_of_another_shape_is_told<DB: TestDatabase>() {
    let place = DB::place().await;
    DB::execute(&place, "CREATE TABLE {table} (seq INTEGER)").await;
    let outbox = Outbox::new(place.pool.clone()).table(&place.table).unwrap();
    let error = outbox.migrate().await.unwrap_err();
    assert!(matches!(error, OutboxError::Table { .. }), "{error:?}");
    assert!(error.to_string().contains(&place.table), "{error}");
    assert!(outbox.table("x; DROP TABLE y").is_err());
}

/// S36: a key that another was taken for would wait for it.
async fn keys_differ_by_case_and_space_and_accent<DB: TestDatabase>() {
    let bench = Bench::<DB>::new().await;
    let policy = RetryPolicy::fixed(Duration::from_secs(600));
    let outbox = bench.outbox().retry_policy(policy);
    let mut tx = bench.place.pool.begin().await.unwrap();
    let blocked = OutboxMessage::new(Outgoing::to_queue("nowhere", "Note", "x")).key("abc");
    outbox.publish_in(&mut tx, blocked).await.unwrap();
    let keys = ["ABC", "abc ", "àbc", "ab", "abcd"];
    for key in keys {
        outbox.publish_in(&mut tx, keyed(key, key)).await.unwrap();
    }
    outbox.publish_in(&mut tx, keyed("abc", "blocked")).await.unwrap();
    for key in ["", "a\0b", &"x".repeat(256)] {
        let error = outbox.publish_in(&mut tx, keyed(key, key)).await.unwrap_err();
        assert!(matches!(error, OutboxError::Key(_)), "{error:?}");
    }
    tx.commit().await.unwrap();
    let sending = bench.send_with(outbox).await;
    until("all the others arrive", async || bench.rows().await == 2).await;
    sending.abort();
    let mut arrived = bench.payloads();
    arrived.sort();
    let mut expected = keys;
    expected.sort_unstable();
    assert_eq!(arrived, expected);
}
