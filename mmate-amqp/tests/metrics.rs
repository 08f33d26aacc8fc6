//! What is told through the `metrics` facade.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "rabbitmq/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use mmate_amqp::Amqp;
use mmate_core::message::Message;
use mmate_core::transport::{Destination, Publication, QueueMode, QueuePlan, Transport};
use mmate_test_support::{amqp_url, unique};

use crate::proxy::Proxy;

/// The values by name and labels; counters since the last look.
fn look(snapshotter: &Snapshotter, seen: &mut BTreeMap<String, f64>) {
    for (key, _, description, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        let name = format!("{} {}", key.name(), labels.join(","));
        assert!(description.is_some(), "{name} is described");
        match value {
            DebugValue::Counter(count) => *seen.entry(name).or_default() += count as f64,
            DebugValue::Gauge(value) => drop(seen.insert(name, value.into_inner())),
            DebugValue::Histogram(values) => *seen.entry(name).or_default() += values.len() as f64,
        }
    }
}

#[tokio::test]
async fn connections_reconnects_and_failed_publishes_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let mut seen = BTreeMap::new();

    let proxy = Proxy::before(&amqp_url()).await;
    let connection = Amqp::new(proxy.url()).connect("tests").await.unwrap();
    let plan = QueuePlan::new(unique("metrics"), QueueMode::Shared);
    connection.declare(&plan).await.unwrap();
    let consumer = connection.consume(&plan, 1).await.unwrap();
    let publish = async |queue: &str| {
        let to = Destination::Queue(queue.to_owned());
        connection.publish(Publication::new(to, Message::new("any"))).await
    };
    publish(&unique("nobody")).await.unwrap_err();
    look(&snapshotter, &mut seen);
    assert_eq!(seen["mmate_amqp_connected role=publish"], 1.0);
    assert_eq!(seen["mmate_amqp_connected role=consume"], 1.0);
    assert_eq!(seen["mmate_amqp_publish_failures_total reason=unroutable"], 1.0);
    assert!(!seen.contains_key("mmate_amqp_publish_seconds "), "it was not confirmed");
    assert!(!seen.contains_key("mmate_amqp_reconnects_total role=publish"));

    proxy.cut();
    publish(&plan.name).await.unwrap();
    let begin = Instant::now();
    while seen.get("mmate_amqp_reconnects_total role=consume") != Some(&1.0) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        look(&snapshotter, &mut seen);
    }
    assert_eq!(seen["mmate_amqp_reconnects_total role=publish"], 1.0);
    assert_eq!(seen["mmate_amqp_publish_seconds "], 1.0);
    assert_eq!(seen["mmate_amqp_connected role=publish"], 1.0);

    drop(consumer);
    connection.close().await;
    look(&snapshotter, &mut seen);
    assert_eq!(seen["mmate_amqp_connected role=publish"], 0.0);
    assert_eq!(seen["mmate_amqp_connected role=consume"], 0.0);
}
