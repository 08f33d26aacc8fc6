//! The broker runs out of memory, and of disk.

use std::time::{Duration, Instant};

use mmate_faults::{Order, Recovery, Scene, until};
use mmate_test_support::unique;

use crate::Broker;

/// F26: while the broker takes nothing, what it gives is handled and acknowledged all the same.
#[tokio::test(flavor = "multi_thread")]
async fn during_an_alarm_acknowledgements_flow_and_publishes_wait() {
    let broker = Broker::start().await;
    let mut scene = Scene::new(unique("alarm"), &broker.url(), &broker.url()).await;
    let alarms = [
        (
            "memory",
            ["set_vm_memory_high_watermark", "absolute", "1MB"].as_slice(),
            ["set_vm_memory_high_watermark", "0.8"].as_slice(),
        ),
        ("disk", &["set_disk_free_limit", "100000GB"], &["set_disk_free_limit", "1MB"]),
    ];
    scene.shop.handling = Duration::from_millis(5);
    for (what, set, clear) in alarms {
        scene.shop.start().await.stop().await.unwrap();
        // A backlog, of which the last ones are to be answered.
        let load = scene.load().await;
        until("there is a backlog", async || (load.mark() >= 150).then_some(())).await;
        load.pause().await;
        for _ in 0..10 {
            assert!(load.publish(Order::answered_to(scene.shop.other_topic())).await);
        }
        let backlog = load.books().owed().count() as u64;
        broker.ctl(set).await;
        let running = scene.shop.start().await;
        let stats = running.stats().clone();
        until("everything that needs no answer is handled", async || {
            (stats.subscription("orders")?.succeeded >= backlog - 10).then_some(())
        })
        .await;
        // What is acknowledged is gone from the queue, ready or not.
        let queue = scene.shop.queue();
        let begin = Instant::now();
        until("their acknowledgements have arrived", async || {
            let list = broker.ctl(&["list_queues", "name", "messages"]).await;
            let line = list.lines().find(|line| line.starts_with(&queue))?;
            (line.split('\t').nth(1)?.parse::<u32>().ok()? <= 10).then_some(())
        })
        .await;
        println!("F26: {what} alarm: acknowledged within {:?}", begin.elapsed());
        load.go_on();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let confirmed = load.books().owed().count() as u64;
        assert!(confirmed <= backlog + 8, "what was on its way at most: {confirmed} of {backlog}");
        assert!(stats.subscription("neighbours").unwrap().succeeded == 0, "no answer came through");
        broker.ctl(clear).await;
        let cleared = Instant::now();
        let time = scene.flows_again(&load, cleared).await;
        let limit = Recovery::of("F26", 5.0);
        limit.took(&format!("{what} alarm: publishes go on after it is over"), time);
        until("the answers are there", async || {
            (stats.subscription("neighbours")?.succeeded >= 10).then_some(())
        })
        .await;
        scene.end("F26", load, running).await;
        // The next alarm has a service and books of its own.
        scene = Scene::new(unique("alarm"), &broker.url(), &broker.url()).await;
        scene.shop.handling = Duration::from_millis(5);
    }
    broker.end().await;
}
