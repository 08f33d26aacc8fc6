//! A channel is closed, or what a consumer needs is gone, while its connection stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mmate_amqp::Amqp;
use mmate_core::{Outgoing, Publisher};
use mmate_faults::{Direction, Fate, Order, Recovery, Scene, until, was_told};
use mmate_test_support::{RabbitMq, unique};

use crate::{Broker, behind_proxy, on_shared_broker};

/// F24: the broker closes the channel over an acknowledgement of what it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn an_exception_of_a_channel_restarts_that_subscription_alone() {
    let (scene, proxy) = behind_proxy("exception").await;
    let running = scene.shop.start().await;
    let load = scene.load_from_elsewhere().await;
    let publisher = Publisher::connect(&Amqp::new(&scene.shop.url), "neighbour").await.unwrap();
    scene.flow(50).await;
    let connections = proxy.accepted();
    let done = Arc::new(AtomicBool::new(false));
    let doing = Arc::clone(&done);
    // One that is sent a second time.
    proxy.rule(move |direction, frame| {
        let is_it = direction == Direction::ToBroker && frame.is_ack();
        match is_it && !doing.swap(true, Ordering::SeqCst) {
            true => Fate::Replace([frame.bytes(), frame.bytes()].concat()),
            false => Fate::Pass,
        }
    });
    until("there is an exception", async || done.load(Ordering::SeqCst).then_some(())).await;
    let begin = Instant::now();
    for n in 0..20 {
        let order = Order::number(-1 - n);
        let message = Outgoing::event(scene.shop.other_topic(), "OrderPlaced", &order);
        publisher.publish(message).await.unwrap();
    }
    let stats = running.stats().clone();
    until("the subscription restarts", async || {
        (stats.subscription("orders")?.settlements_lost > 0
            || stats.subscription("orders")?.duplicates.redelivered > 0
            || stats.subscription("orders")?.adopted > 0)
            .then_some(())
    })
    .await;
    let time = scene.flows_again(&load, begin).await;
    Recovery::of("F24", 1.0).took("channel exception: that subscription goes on", time);
    until("the neighbour has handled everything", async || {
        (stats.subscription("neighbours")?.succeeded == 20).then_some(())
    })
    .await;
    assert_eq!(proxy.accepted(), connections, "its connection was not to be harmed");
    let neighbour = stats.subscription("neighbours").unwrap();
    assert_eq!((neighbour.fetched, neighbour.settlements_lost), (20, 0), "{neighbour:?}");
    publisher.close().await;
    scene.end("F24", load, running).await;
}

/// F25: a handler works for longer than the broker waits for an acknowledgement.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_slower_than_the_brokers_patience_has_one_effect() {
    let broker = Broker::with(RabbitMq::options().config("consumer_timeout = 1500")).await;
    // How often it looks whether a consumer is too slow; a minute by default.
    broker.ctl(&["eval", "application:set_env(rabbit, channel_tick_interval, 500)."]).await;
    let scene = Scene::new(unique("slow"), &broker.url(), &broker.url()).await;
    let running = scene.shop.start().await;
    let load = scene.load().await;
    scene.flow(30).await;
    assert!(load.publish(Order::laborious(Duration::from_secs(3))).await);
    let stats = running.stats().clone();
    until("the broker loses its patience", async || (stats.total().adopted > 0).then_some(()))
        .await;
    let begin = Instant::now();
    let queue = scene.shop.queue();
    let warning = ["WARN", "slower than its consumer_timeout", queue.as_str()];
    until("it warns", async || was_told(&warning).then_some(())).await;
    until("the handler is done", async || {
        let mark = load.mark();
        (stats.total().in_flight == 0 || scene.effects.any_from(mark).await).then_some(())
    })
    .await;
    println!("F25: the slow one was done after {:?}", begin.elapsed());
    let time = scene.flows_again(&load, Instant::now()).await;
    Recovery::of("F25", 5.0)
        .took("consumer_timeout exceeded: messages flow after the slow one", time);
    scene.end("F25", load, running).await;
    broker.end().await;
}

/// F27: the queue is deleted under its consumer.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_made_again_and_consumed() {
    let scene = on_shared_broker("deleted").await;
    let witness = scene.witness().await;
    let running = scene.shop.start().await;
    let load = scene.load().await;
    let mut times = Vec::new();
    for _ in 0..3 {
        scene.flow(50).await;
        // What is in a queue goes with it, and that is nobody's fault but the one's who deletes it.
        load.pause().await;
        until("everything has its effect", async || {
            let effects = scene.effects.of("orders").await;
            load.books().has_all(&effects).then_some(())
        })
        .await;
        witness.delete(&scene.shop.queue()).await;
        load.go_on();
        times.push(scene.flows_again(&load, Instant::now()).await);
    }
    Recovery::of("F27", 5.0).took_at_most("queue deleted: made again, messages flow", &times);
    scene.end("F27", load, running).await;
}
