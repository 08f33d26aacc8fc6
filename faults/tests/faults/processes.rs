//! Consumers as processes of their own: ended, frozen, rolled over.

use std::time::{Duration, Instant};

use mmate_faults::{Child, Recovery, Report, Shop, is_long_run, until};

use crate::{instance, on_shared_broker};

async fn spawn(shop: &Shop, name: &str) -> Child {
    Child::start(env!("CARGO_BIN_EXE_consumer"), &instance(shop, name)).await
}

/// F14, S49: what was finished is acknowledged, what was begun is finished, and the rest goes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_asked_to_end_under_load_leaves_nothing_to_be_done_twice() {
    let mut scene = on_shared_broker("ended").await;
    scene.shop.handling = Duration::from_millis(2);
    let mut child = spawn(&scene.shop, "0").await;
    let load = scene.load().await;
    let (mut drains, mut handovers, mut reports) = (Vec::new(), Vec::new(), Vec::<Report>::new());
    for name in ["1", "2", "3"] {
        scene.flow(60).await;
        let next = spawn(&scene.shop, name).await;
        // More than they take at a time, so that some is fetched and not begun.
        load.burst(150).await;
        let begin = Instant::now();
        let report = child.stop().await;
        drains.push(begin.elapsed());
        handovers.push(scene.flows_again(&load, Instant::now()).await);
        reports.push(report);
        child = next;
    }
    let books = scene.settle_up(load).await;
    scene.until_ready(0).await;
    reports.push(child.stop().await);
    Recovery::of("F14", 5.0).took_at_most("SIGTERM under load: the process has drained", &drains);
    Recovery::of("F14", 5.0).took_at_most("SIGTERM under load: the other goes on", &handovers);
    for report in &reports {
        assert_eq!((report.redelivered, report.settlements_lost), (0, 0), "{report:?}");
        assert!(report.is_conserved);
    }
    let succeeded: u64 = reports.iter().map(|report| report.succeeded).sum();
    let verdict = scene.judge(&books).await;
    assert_eq!(succeeded, verdict.effects, "the counts of all are the ledger");
    verdict.must_be_clean("F14");
    println!("F14: {reports:?}");
}

/// F11: the broker gives the messages of a frozen process to another; when it wakes, what it acknowledges counts for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_frozen_past_its_heartbeat_doubles_nothing() {
    let mut scene = on_shared_broker("asleep").await;
    scene.shop.heartbeat = Duration::from_secs(1);
    scene.shop.handling = Duration::from_millis(2);
    let sleeper = spawn(&scene.shop, "sleeper").await;
    let load = scene.load().await;
    let mut lost = 0;
    scene.flow(60).await;
    load.burst(100).await;
    sleeper.signal("STOP").await;
    let other = spawn(&scene.shop, "other").await;
    // Twice the heartbeat and more, until the broker takes its messages away.
    tokio::time::sleep(Duration::from_secs(6)).await;
    sleeper.signal("CONT").await;
    let time = scene.flows_again(&load, Instant::now()).await;
    Recovery::of("F11", 5.0)
        .took("SIGSTOP of a consumer past its heartbeat: messages flow after SIGCONT", time);
    let before = scene.effects.count_by("sleeper").await;
    until("the sleeper works again", async || {
        (scene.effects.count_by("sleeper").await > before + 5).then_some(())
    })
    .await;
    let books = scene.settle_up(load).await;
    scene.until_ready(0).await;
    for child in [sleeper, other] {
        let report = child.stop().await;
        lost += report.settlements_lost + report.redelivered + report.adopted;
        println!("F11: {report:?}");
    }
    assert!(lost > 0, "no acknowledgement was lost");
    scene.judge(&books).await.must_be_clean("F11");
}

/// F52, S49
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_four_processes_under_load_is_not_noticed() {
    let (rounds, pause) = match is_long_run() {
        true => (5, Duration::from_secs(5)),
        false => (1, Duration::from_millis(1_500)),
    };
    let scene = on_shared_broker("rolling").await;
    let mut children = Vec::new();
    for n in 0..4 {
        children.push(spawn(&scene.shop, &format!("first-{n}")).await);
    }
    let load = scene.load().await;
    scene.flow(100).await;
    let (mut gaps, mut reports) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for n in 0..4 {
            let old = children.remove(0);
            let restart = async {
                reports.push(old.stop().await);
                spawn(&scene.shop, &format!("round-{round}-{n}")).await
            };
            let mut restart = std::pin::pin!(restart);
            let new = loop {
                let begin = Instant::now();
                tokio::select! {
                    new = &mut restart => break new,
                    gap = scene.flows_again(&load, begin) => gaps.push(gap),
                }
            };
            children.push(new);
            tokio::time::sleep(pause).await;
        }
    }
    Recovery::of("F52", 2.0)
        .took_at_most("rolling restart of 4 processes: from an order to its effect", &gaps);
    let books = scene.settle_up(load).await;
    scene.until_ready(0).await;
    for child in children {
        reports.push(child.stop().await);
    }
    for report in &reports {
        assert_eq!((report.redelivered, report.settlements_lost), (0, 0), "{report:?}");
        assert!(report.is_conserved);
    }
    scene.judge(&books).await.must_be_clean("F52");
}
