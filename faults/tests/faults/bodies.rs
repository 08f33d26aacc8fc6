//! Bodies that are too large to be held.

use std::time::Instant;

use mmate_faults::{Child, Recovery, is_long_run, memory, until};

use crate::on_shared_broker;

/// F31: as many as the prefetch would be held at a time.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_above_the_limit_are_parked_and_never_held() {
    const SIZE: usize = 16 << 20;
    let count = if is_long_run() { 200 } else { 20 };
    let mut scene = on_shared_broker("large").await;
    scene.shop.max_body_bytes = 1 << 20;
    scene.shop.prefetch = 50;
    // The queue is there, and nobody consumes it yet.
    scene.shop.start().await.stop().await.unwrap();
    let load = scene.load().await;
    let (witness, body) = (scene.witness().await, vec![7; SIZE]);
    for n in 0..count {
        let id = format!("large-{n}");
        witness.publish(&scene.shop.queue(), &id, &body).await;
        load.note(|books| books.poison(&id));
    }
    let child = Child::start(env!("CARGO_BIN_EXE_consumer"), &scene.shop).await;
    let begin = Instant::now();
    let time = scene.flows_again(&load, begin).await;
    let what = format!("{count} bodies of 16 MiB, prefetch 50, limit 1 MiB: others flow");
    Recovery::of("F31", if is_long_run() { 120.0 } else { 20.0 }).took(&what, time);
    let dead = mmate_core::message::wire::dead_letter_queue(&scene.shop.queue());
    until("all are parked", async || (witness.ready(&dead).await >= count).then_some(())).await;
    let what = format!("{count} bodies of 16 MiB, prefetch 50, limit 1 MiB: peak memory");
    memory("F31", &what, child.peak_memory().unwrap_or(0), 128 << 20);
    let books = scene.settle_up(load).await;
    scene.until_ready(0).await;
    let report = child.stop().await;
    assert_eq!(report.settlements_lost, 0, "{report:?}");
    scene.judge(&books).await.must_be_clean("F31");
}
