//! The broker is killed, restarted, frozen.

use std::time::{Duration, Instant};

use mmate_faults::{Proxy, Recovery, Scene, is_long_run, until};
use mmate_test_support::unique;

use crate::Broker;

/// F16: everything is there again soon after the broker is, as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_is_used_again_soon_after_its_port_opens() {
    let limit = Recovery::of("F16", 5.0);
    let mut broker = Broker::start().await;
    let mut scene = Scene::new(unique("killed"), &broker.url(), &broker.url()).await;
    scene.shop.prefetch = 37;
    let running = scene.shop.start().await;
    let load = scene.load().await;
    let mut times = Vec::new();
    for _ in 0..2 {
        scene.flow(150).await;
        broker
            .suffer(|broker| {
                broker.kill();
                broker.start_again().unwrap();
            })
            .await;
        times.push(scene.flows_again(&load, Instant::now()).await);
    }
    limit.took_at_most("SIGKILL of the broker: messages flow after its port opened", &times);
    let consumers = broker.ctl(&["list_consumers", "queue_name", "prefetch_count"]).await;
    let ours = consumers.lines().filter(|line| line.starts_with(&scene.shop.service));
    let ours: Vec<_> = ours.collect();
    assert_eq!(ours.len(), 2, "{consumers}");
    assert!(ours.iter().all(|line| line.ends_with("\t37")), "{consumers}");
    scene.end("F16", load, running).await;
    broker.end().await;
}

/// F17
#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_the_broker_in_good_order_under_load_lose_nothing() {
    let limit = Recovery::of("F17", 5.0);
    let mut broker = Broker::start().await;
    let scene = Scene::new(unique("restarted"), &broker.url(), &broker.url()).await;
    let running = scene.shop.start().await;
    let load = scene.load().await;
    let mut times = Vec::new();
    for _ in 0..if is_long_run() { 20 } else { 3 } {
        scene.flow(100).await;
        broker
            .suffer(|broker| {
                broker.stop().unwrap();
                broker.start_again().unwrap();
            })
            .await;
        times.push(scene.flows_again(&load, Instant::now()).await);
    }
    limit.took_at_most("restart of the broker: messages flow after its port opened", &times);
    scene.end("F17", load, running).await;
    broker.end().await;
}

/// F18: every connection stays open, and nothing answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_noticed_and_used_again_when_it_wakes() {
    let (heartbeat, frozen) = match is_long_run() {
        true => (Duration::from_secs(10), Duration::from_secs(30)),
        false => (Duration::from_secs(2), Duration::from_secs(6)),
    };
    let noticing = Recovery::of("F18", 2.0 * heartbeat.as_secs_f64());
    let recovering = Recovery::of("F18", 5.0);
    let broker = Broker::start().await;
    let proxy = Proxy::before(&broker.url()).await;
    let mut scene = Scene::new(unique("frozen"), &proxy.url(), &broker.url()).await;
    scene.shop.heartbeat = heartbeat;
    let running = scene.shop.start().await;
    let load = scene.load().await;
    scene.flow(100).await;
    let connections = proxy.accepted();
    broker.get().pause();
    let begin = Instant::now();
    let what = "all three connections are given up";
    until(what, async || (proxy.accepted() >= connections + 3).then_some(())).await;
    let what = format!("SIGSTOP of the broker: noticed (heartbeat {heartbeat:?})");
    noticing.took(&what, begin.elapsed());
    tokio::time::sleep(frozen.saturating_sub(begin.elapsed())).await;
    broker.get().resume();
    let time = scene.flows_again(&load, Instant::now()).await;
    recovering
        .took(&format!("SIGSTOP of the broker for {frozen:?}: messages flow after SIGCONT"), time);
    scene.end("F18", load, running).await;
    broker.end().await;
}
