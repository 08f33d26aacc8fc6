//! What a service tells through the `metrics` facade.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use mmate_core::{
    HandlerError, InProcess, Json, Outgoing, Permanent, RetryPolicy, Service, Subscription,
};

async fn handle(Json(n): Json<u64>) -> Result<(), HandlerError> {
    match n {
        0 => Err("never").permanent(),
        1 => Err(HandlerError::retryable("not yet")),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn counts_and_times_are_told_with_their_descriptions() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();

    let broker = InProcess::new();
    let twice = RetryPolicy::fixed(Duration::from_millis(1)).max_attempts(2);
    let running = Service::new("shop")
        .subscribe(Subscription::per_service("q", ["number.#"]).retry(twice).handler(handle))
        .start(broker.clone())
        .await
        .unwrap();
    for n in 0..5_u64 {
        running.publisher().publish(Outgoing::event("number.made.eu", "Number", &n)).await.unwrap();
    }
    broker.idle().await;
    running.stop().await.unwrap();

    let mut seen = BTreeMap::new();
    for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
        let key = key.key();
        let mut labels: Vec<_> = key.labels().map(|label| (label.key(), label.value())).collect();
        let (service, subscription) = (("service", "shop"), ("subscription", "q"));
        assert!(labels.contains(&service) && labels.contains(&subscription), "{labels:?}");
        labels.retain(|label| *label != service && *label != subscription);
        let labels: String = labels.iter().map(|(_, value)| format!(" {value}")).collect();
        let name = format!("{}{labels}", key.name());
        assert!(description.is_some(), "{name} is described");
        assert_eq!(unit.is_some(), name.ends_with("_seconds"), "{name}");
        let number = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        seen.insert(name, number);
    }
    for (name, number) in [
        ("mmate_fetched_total", 6.0),
        ("mmate_outcomes_total succeeded", 3.0),
        ("mmate_outcomes_total retried", 1.0),
        ("mmate_outcomes_total dead-lettered permanent", 1.0),
        ("mmate_outcomes_total dead-lettered attempts-exhausted", 1.0),
        ("mmate_in_flight", 0.0),
        ("mmate_handling_seconds", 6.0),
        ("mmate_settling_seconds", 6.0),
    ] {
        assert_eq!(seen.get(name), Some(&number), "{name} in {seen:#?}");
    }
}
