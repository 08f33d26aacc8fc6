//! Publishing while confirms do not come.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mmate_core::PublishError;
use mmate_core::transport::Connection;
use mmate_test_support::amqp_url;

use crate::proxy::Proxy;
use crate::support::{
    PATIENCE, Stranger, ack, broker, connect, ctl, event, id_of, next, plan, private_url,
    publish_all, until,
};

#[tokio::test]
async fn a_confirm_that_does_not_come_is_ambiguous_and_says_how_far_it_got() {
    let proxy = Proxy::before(&amqp_url()).await;
    let limit = Duration::from_millis(400);
    let connection = connect(broker(&proxy.url()).publish_timeout(limit)).await;
    let plan = plan("ambiguous");
    connection.declare(&plan).await.unwrap();
    connection.publish(event(&plan, "1")).await.unwrap();
    proxy.hold_from_broker(true);
    let begin = Instant::now();
    let error = connection.publish(event(&plan, "2")).await.unwrap_err();
    assert!(matches!(error, PublishError::Ambiguous { .. }), "{error}");
    assert!(error.to_string().contains("did not confirm"), "{error}");
    assert!(begin.elapsed() >= limit && begin.elapsed() < limit * 5);
    proxy.hold_from_broker(false);
    connection.publish(event(&plan, "3")).await.unwrap();
    // It was stored all the same.
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    for id in ["1", "2", "3"] {
        assert_eq!(id_of(&next(&mut consumer).await), id);
    }
}

#[tokio::test]
async fn the_window_bounds_what_is_unconfirmed_and_the_rest_waits() {
    let proxy = Proxy::before(&amqp_url()).await;
    let connection: Arc<dyn Connection> =
        Arc::from(connect(broker(&proxy.url()).publish_window(3)).await);
    let plan = plan("window");
    connection.declare(&plan).await.unwrap();
    connection.publish(event(&plan, "first")).await.unwrap();
    let stranger = Stranger::at(&amqp_url()).await;
    stranger.until_ready(&plan.name, 1).await;

    proxy.hold_from_broker(true);
    let (publisher, to) = (Arc::clone(&connection), plan.clone());
    let publishing = tokio::spawn(async move { publish_all(&publisher, &to, 0..20).await });
    stranger.until_ready(&plan.name, 4).await;
    // Nothing can show that no more are sent, but time.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stranger.ready(&plan.name).await, Some(4));
    proxy.hold_from_broker(false);
    publishing.await.unwrap();
    stranger.until_ready(&plan.name, 21).await;
}

/// F19, F20: what is confirmed is stored, over any number of cuts.
#[tokio::test(flavor = "multi_thread")]
async fn publishing_goes_on_over_cuts_with_the_same_ids() {
    let proxy = Proxy::before(&amqp_url()).await;
    let connection: Arc<dyn Connection> = Arc::from(connect(broker(&proxy.url())).await);
    let plan = plan("cuts");
    connection.declare(&plan).await.unwrap();
    let (publisher, to) = (Arc::clone(&connection), plan.clone());
    let publishing = tokio::spawn(async move { publish_all(&publisher, &to, 0..3_000).await });
    let mut cuts = 0;
    while !publishing.is_finished() {
        proxy.cut();
        cuts += 1;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    publishing.await.unwrap();
    let mut consumer = connection.consume(&plan, 1000).await.unwrap();
    let (mut ids, mut copies) = (HashSet::new(), 0);
    while ids.len() < 3_000 {
        let delivery = next(&mut consumer).await;
        ids.insert(id_of(&delivery));
        copies += 1;
        let _ = delivery.settle(mmate_core::transport::Settlement::Ack).await;
    }
    println!("{cuts} cuts, {} published, {copies} stored at least", ids.len());
}

/// F26
#[tokio::test(flavor = "multi_thread")]
async fn during_an_alarm_acks_flow_and_publishes_wait() {
    let url = private_url();
    let limit = Duration::from_secs(2);
    let patient: Arc<dyn Connection> = Arc::from(connect(broker(&url)).await);
    let hasty = connect(broker(&url).publish_timeout(limit)).await;
    let plan = plan("alarm");
    patient.declare(&plan).await.unwrap();
    hasty.publish(event(&plan, "first")).await.unwrap();
    publish_all(&patient, &plan, 0..10).await;
    let mut consumer = patient.consume(&plan, 20).await.unwrap();
    let held = next(&mut consumer).await;

    let alarm = "[{{resource_limit,memory,node()},[]}]";
    ctl(&["eval", &format!("rabbit_alarm:set_alarm(hd({alarm})).")]);
    // The broker blocks a connection when it publishes next.
    let publisher = Arc::clone(&patient);
    let to = plan.clone();
    let waiting = tokio::spawn(async move { publisher.publish(event(&to, "waiting")).await });
    let error = hasty.publish(event(&plan, "hasty")).await.unwrap_err();
    assert!(matches!(error, PublishError::Ambiguous { .. }), "{error}");
    let status = BTreeMap::from_iter(patient.status());
    assert!(status["publish"].to_string().starts_with("degraded: the broker blocks"), "{status:?}");
    assert!(status["consume"].is_up(), "{status:?}");
    ack(held).await;
    for _ in 0..10 {
        ack(next(&mut consumer).await).await;
    }
    assert!(!waiting.is_finished());
    let unacked = || {
        let list = ctl(&["list_queues", "name", "messages"]);
        let line = list.lines().find(|line| line.starts_with(&plan.name)).unwrap().to_owned();
        line.ends_with("\t0")
    };
    until("the acknowledgements have arrived", async || unacked().then_some(())).await;

    ctl(&["eval", "rabbit_alarm:clear_alarm({resource_limit,memory,node()})."]);
    let begin = Instant::now();
    tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    println!("published {:?} after the alarm", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(5));
    let mut ids = HashSet::new();
    while !ids.contains("waiting") {
        let delivery = next(&mut consumer).await;
        ids.insert(id_of(&delivery));
        ack(delivery).await;
    }
}
