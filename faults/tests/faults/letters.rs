//! Messages that cannot be read, and dead letters that get lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mmate_faults::{Direction, Fate, Order, Proxy, Recovery, Scene, until};
use mmate_test_support::{amqp_url, unique};

use crate::behind_proxy;

/// F2: the id, or the name of a header, is not UTF-8.
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_messages_among_good_ones_are_parked_and_their_neighbours_are_not() {
    // The bytes are made wrong on the way from a publisher to the broker.
    let forger = Proxy::before(&amqp_url()).await;
    forger.rule(|direction, frame| {
        let is_header = direction == Direction::ToBroker && frame.is_header();
        match frame.replaced(b"unreadable-??", b"unreadable-\xff\xfe") {
            Some(wrong) if is_header => Fate::Replace(wrong),
            _ => Fate::Pass,
        }
    });
    let (mut scene, proxy) = behind_proxy("unreadable").await;
    scene.shop.delivery_limit = 3;
    // The queue is there, and nobody consumes it yet.
    scene.shop.start().await.stop().await.unwrap();
    let load = scene.load_from_elsewhere().await;
    let forging = Scene::new(unique("forger"), &forger.url(), &forger.url()).await.witness().await;
    for round in 0..3 {
        while load.mark() < 35 * (round + 1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        forging.publish(&scene.shop.queue(), "unreadable-??", b"{}").await;
    }
    load.note(|books| books.poison("unreadable-\u{1A}\u{1A}"));
    let begin = Instant::now();
    let running = scene.shop.start().await;
    let stats = running.stats().clone();
    until("they are parked", async || (stats.total().dead_lettered == 3).then_some(())).await;
    let parked = begin.elapsed();
    let time = scene.flows_again(&load, begin).await.max(parked);
    Recovery::of("F2", 5.0).took("3 unreadable ids among 100: parked, and messages flow", time);
    // The three of the start, with the load's own: no connection was lost over them.
    assert_eq!(proxy.accepted(), 4, "no connection was given up");
    scene.end("F2", load, running).await;
}

/// F30: the broker has stored the dead letter, and its confirm gets lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_whose_confirm_is_lost_comes_twice_at_most_under_the_same_id() {
    let (mut scene, proxy) = behind_proxy("unconfirmed").await;
    scene.shop.settle_timeout = Duration::from_secs(2);
    let running = scene.shop.start().await;
    let load = scene.load_from_elsewhere().await;
    scene.flow(30).await;
    let dropped = Arc::new(AtomicUsize::new(0));
    let dropping = Arc::clone(&dropped);
    proxy.rule(move |direction, frame| {
        let is_confirm = direction == Direction::FromBroker && frame.is_ack();
        match is_confirm && dropping.fetch_add(1, Ordering::SeqCst) == 0 {
            true => Fate::Drop,
            false => Fate::Pass,
        }
    });
    assert!(load.publish(Order::poison()).await);
    until("a confirm is dropped", async || (dropped.load(Ordering::SeqCst) > 0).then_some(()))
        .await;
    let begin = Instant::now();
    let stats = running.stats().clone();
    until("the original comes again, and is settled", async || {
        let counts = stats.subscription("orders")?;
        (counts.dead_lettered == 2 && counts.settlements_lost == 1).then_some(())
    })
    .await;
    let limit = Recovery::of("F30", 5.0);
    limit.took("confirm of a dead letter lost: put by again (settle timeout 2s)", begin.elapsed());
    let time = scene.flows_again(&load, Instant::now()).await;
    limit.took("confirm of a dead letter lost: messages flow meanwhile", time);
    let books = scene.settle_up(load).await;
    scene.stop(running).await;
    let verdict = scene.judge(&books).await;
    assert!(verdict.letters <= 2, "{verdict}");
    verdict.must_be_clean("F30");
}
