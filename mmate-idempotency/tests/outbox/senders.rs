//! Senders that wait, die, and meet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mmate_core::{InProcess, Publisher};
use mmate_idempotency::Outbox;
use sqlx::pool::PoolOptions;
use tokio::task::JoinSet;

use crate::bench::{Arrived, Bench, SINK, arrived, keyed, make_queue, note, until};
use crate::database::{TestDatabase, in_every_database};

in_every_database! {
    a_lost_confirmation_sends_the_same_id_again,
    a_broker_that_is_away_loses_nothing_and_gives_nothing_up,
    while_one_sender_holds_a_key_no_other_overtakes_it_and_its_death_frees_the_key,
    after_a_stop_nothing_is_held_and_what_was_committed_is_sent,
    two_senders_share_the_work_and_keep_the_order_of_each_key,
    of_many_messages_under_random_kills_none_is_lost_and_each_key_keeps_its_order,
}

async fn write<DB: TestDatabase>(bench: &Bench<DB>, payload: &str) -> String {
    let mut tx = bench.place.pool.begin().await.unwrap();
    let id = bench.outbox().publish_in(&mut tx, keyed("k", payload)).await.unwrap();
    tx.commit().await.unwrap();
    id.to_string()
}

/// S29: what is not confirmed is sent again, as the same message, and what is confirmed is not.
async fn a_lost_confirmation_sends_the_same_id_again<DB: TestDatabase>() {
    let bench = Bench::<DB>::new().await;
    let (first, second) = (write(&bench, "1").await, write(&bench, "2").await);
    bench.broker.drop_next_confirms(2);
    let sending = bench.send_with(bench.outbox()).await;
    bench.emptied().await;
    sending.abort();
    let ids: Vec<_> = bench.arrived().into_iter().map(|arrived| arrived.id).collect();
    assert_eq!(ids, [first.clone(), first.clone(), first, second]);
}

async fn a_broker_that_is_away_loses_nothing_and_gives_nothing_up<DB: TestDatabase>() {
    let bench = Bench::<DB>::new().await;
    let outbox = bench.outbox().lease(Duration::from_millis(200));
    let sending = bench.send_with(outbox.clone()).await;
    bench.broker.pause();
    for n in 0..50 {
        write(&bench, &format!("{n:02}")).await;
    }
    // It is claimed and given back a few times meanwhile: a broker that is away costs no attempt.
    for _ in 0..3 {
        until("it is claimed", async || bench.claimed_rows().await > 0).await;
        until("it is given back", async || bench.claimed_rows().await == 0).await;
    }
    assert_eq!(bench.arrived(), []);
    let attempts = "SELECT count(*) FROM {table} WHERE attempts > 0 OR dead_at IS NOT NULL";
    assert_eq!(DB::number(&bench.place, attempts).await, 0);
    bench.broker.resume();
    bench.emptied().await;
    sending.abort();
    let mut payloads = bench.payloads();
    payloads.dedup();
    assert_eq!(payloads, (0..50).map(|n| format!("{n:02}")).collect::<Vec<_>>());
}

/// S29: the process died after the commit.
async fn while_one_sender_holds_a_key_no_other_overtakes_it_and_its_death_frees_the_key<
    DB: TestDatabase,
>() {
    let bench = Bench::<DB>::new().await;
    write(&bench, "1").await;
    // A sender whose broker does not answer has it in hand.
    let away = InProcess::new();
    let publisher = Publisher::connect(&away, "relay").await.unwrap();
    away.pause();
    let options = (*bench.place.pool.connect_options()).clone();
    let connections = PoolOptions::<DB>::new().connect_with(options).await.unwrap();
    let doomed = Outbox::new(connections.clone()).table(&bench.place.table).unwrap();
    let doomed = doomed.sweep_every(Duration::from_millis(20)).lease(Duration::from_secs(3_600));
    let doomed = tokio::spawn(async move { doomed.run(publisher, std::future::pending()).await });
    until("it is claimed", async || bench.claimed_rows().await == 1).await;
    doomed.abort();
    assert!(doomed.await.unwrap_err().is_cancelled());
    // A claim that is under way goes to its end, and none comes after it.
    connections.close().await;
    write(&bench, "2").await;
    let mut tx = bench.place.pool.begin().await.unwrap();
    bench.outbox().publish_in(&mut tx, note("of no key")).await.unwrap();
    tx.commit().await.unwrap();
    let sending = bench.send_with(bench.outbox()).await;
    until("the other arrives", async || !bench.arrived().is_empty()).await;
    assert_eq!(bench.payloads(), ["of no key"]);
    // An hour passes.
    let sql = "UPDATE {table} SET ready_at = ready_at - 3600000 WHERE claim IS NOT NULL";
    DB::execute(&bench.place, sql).await;
    bench.emptied().await;
    sending.abort();
    assert_eq!(bench.payloads(), ["of no key", "1", "2"]);
}

/// S49
async fn after_a_stop_nothing_is_held_and_what_was_committed_is_sent<DB: TestDatabase>() {
    let bench = Bench::<DB>::new().await;
    // It would look again in an hour, so what is sent is sent because of the stop.
    let outbox = bench.outbox().sweep_every(Duration::from_secs(3_600)).batch(10);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let publisher = bench.publisher().await;
    let running = {
        let outbox = outbox.clone();
        tokio::spawn(async move {
            outbox
                .run(publisher, async {
                    let _ = stopped.await;
                })
                .await;
        })
    };
    write(&bench, "first").await;
    outbox.wake();
    bench.emptied().await;
    for n in 0..50 {
        write(&bench, &format!("{n}")).await;
    }
    stop.send(()).unwrap();
    running.await.unwrap();
    assert_eq!((bench.rows().await, bench.arrived().len()), (0, 51));
    // Without a broker it ends all the same, and leaves the messages to others.
    write(&bench, "later").await;
    let publisher = bench.publisher().await;
    publisher.close().await;
    let running = outbox.run(publisher, std::future::pending());
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("it ends");
    assert_eq!((bench.rows().await, bench.claimed_rows().await), (1, 0));
}

async fn two_senders_share_the_work_and_keep_the_order_of_each_key<DB: TestDatabase>() {
    let bench = Bench::<DB>::new().await;
    let other = InProcess::new();
    make_queue(&other, SINK).await;
    fill(&bench, 600, 12).await;
    let outbox = || bench.outbox().batch(8);
    let publisher = Publisher::connect(&other, "relay").await.unwrap();
    let elsewhere = {
        let outbox = outbox();
        tokio::spawn(async move { outbox.run(publisher, std::future::pending()).await })
    };
    let here = bench.send_with(outbox()).await;
    bench.emptied().await;
    here.abort();
    elsewhere.abort();
    let (here, there) = (bench.arrived(), arrived(&other, SINK));
    assert_eq!(here.len() + there.len(), 600);
    assert!(!here.is_empty() && !there.is_empty(), "{} and {}", here.len(), there.len());
    check_order(&here);
    check_order(&there);
}

/// S29
async fn of_many_messages_under_random_kills_none_is_lost_and_each_key_keeps_its_order<
    DB: TestDatabase,
>() {
    const MESSAGES: usize = 10_000;
    const KEYS: usize = 200;
    let bench = Bench::<DB>::new().await;
    let mut random = fastrand::Rng::with_seed(29);
    let (mut kills, mut senders) = (0, JoinSet::new());
    let start = |random: &mut fastrand::Rng| {
        let outbox = bench.outbox().lease(Duration::from_millis(300)).batch(32);
        let broker = bench.broker.clone();
        let life = Duration::from_millis(random.u64(20..600));
        async move {
            let publisher = Publisher::connect(&broker, "relay").await.unwrap();
            // Dropping what it does, wherever that is, is its death.
            let _ = tokio::time::timeout(life, outbox.run(publisher, std::future::pending())).await;
        }
    };
    let filled = AtomicBool::new(false);
    let filling = async {
        let ids = fill(&bench, MESSAGES, KEYS).await;
        filled.store(true, Ordering::SeqCst);
        ids
    };
    let killing = async {
        for _ in 0..3 {
            senders.spawn(start(&mut random));
        }
        let rows = "SELECT count(*) FROM {table}";
        loop {
            senders.join_next().await.unwrap().unwrap();
            kills += 1;
            if random.u8(..4) == 0 {
                bench.broker.drop_next_confirms(random.usize(1..4));
            }
            let filled = filled.load(Ordering::SeqCst);
            if filled && DB::number(&bench.place, rows).await == 0 {
                break;
            }
            senders.spawn(start(&mut random));
        }
    };
    let limit = Duration::from_secs(300);
    let both = async { tokio::join!(filling, killing) };
    let (ids, ()) = tokio::time::timeout(limit, both).await.expect("all is sent in time");
    senders.shutdown().await;
    bench.emptied().await;
    let arrived = bench.arrived();
    let mut of_id: HashMap<&str, &str> = HashMap::new();
    for Arrived { id, payload } in &arrived {
        let before = of_id.insert(id, payload);
        assert!(before.is_none_or(|before| before == payload), "{id} is of two messages");
    }
    let lost = ids.iter().filter(|id| !of_id.contains_key(id.as_str())).count();
    let doubled = arrived.len() - of_id.len();
    println!("{MESSAGES} messages, {kills} kills, {doubled} sent again, {lost} lost");
    assert_eq!((lost, of_id.len(), ids.len()), (0, MESSAGES, MESSAGES));
    check_order(&arrived);
    assert!(kills > 20, "{kills}");
}

/// Writes messages of so many keys, several to a transaction, those of one key by one writer. Their
/// payloads are the key and a number that counts up. Returns their ids.
async fn fill<DB: TestDatabase>(bench: &Bench<DB>, messages: usize, keys: usize) -> Vec<String> {
    const WRITERS: usize = 4;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (pool, outbox) = (bench.place.pool.clone(), bench.outbox());
        writers.spawn(async move {
            let (mut ids, mut random) = (Vec::new(), fastrand::Rng::with_seed(writer as u64));
            let mine: Vec<usize> = (0..messages).filter(|n| n % keys % WRITERS == writer).collect();
            let mut rest = &mine[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(random.usize(1..40).min(rest.len()));
                rest = later;
                let mut tx = pool.begin().await.unwrap();
                for n in now {
                    let (key, number) = (format!("{}", n % keys), n / keys);
                    let message = keyed(&key, &format!("{key}/{number}"));
                    let id = outbox.publish_in(&mut tx, message).await.unwrap();
                    ids.push(id.to_string());
                }
                tx.commit().await.unwrap();
                // The senders shall have something new to do for a while.
                tokio::time::sleep(Duration::from_millis(random.u64(..30))).await;
            }
            ids
        });
    }
    let mut all = Vec::new();
    while let Some(ids) = writers.join_next().await {
        all.extend(ids.unwrap());
    }
    all
}

/// Of each key, the messages came in their order; one that came before may come again.
fn check_order(arrived: &[Arrived]) {
    let mut seen: HashMap<&str, Vec<i64>> = HashMap::new();
    for Arrived { payload, .. } in arrived {
        let (key, number) = payload.split_once('/').unwrap();
        let number: i64 = number.parse().unwrap();
        let seen = seen.entry(key).or_default();
        if !seen.contains(&number) {
            assert!(seen.iter().all(|before| *before < number), "{payload} comes after {seen:?}");
            seen.push(number);
        }
    }
}
