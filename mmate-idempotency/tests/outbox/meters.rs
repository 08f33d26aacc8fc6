//! What the outbox tells.

use std::collections::HashMap;
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use mmate_core::{Outgoing, RetryPolicy};
use sqlx::Sqlite;

use crate::bench::{Bench, note, until};

/// What was told so far, by name and second label: a look takes counts away.
#[derive(Default)]
struct Told(HashMap<String, f64>);

impl Told {
    #[expect(clippy::cast_precision_loss, reason = "the counts are small")]
    fn look(&mut self, snapshotter: &Snapshotter) {
        for (key, _, described, value) in snapshotter.snapshot().into_vec() {
            let labels: Vec<_> = key.key().labels().map(|l| l.value().to_owned()).collect();
            if !key.key().name().starts_with("mmate_outbox_") {
                continue;
            }
            assert!(described.is_some(), "{key:?} is described");
            assert!(labels[0].starts_with("outbox_"), "{labels:?}");
            let told = self.0.entry(format!("{}[{}]", key.key().name(), labels[1..].join(",")));
            let told = told.or_default();
            match value {
                DebugValue::Counter(count) => *told += count as f64,
                DebugValue::Gauge(value) => *told = value.into_inner(),
                DebugValue::Histogram(values) => {
                    *told += values.iter().map(|v| v.into_inner()).sum::<f64>();
                }
            }
        }
    }

    fn value(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("{name} is told: {:?}", self.0))
    }
}

#[test]
fn what_is_written_sent_failed_and_given_up_is_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let bench = Bench::<Sqlite>::new().await;
            let policy = RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(2);
            let outbox = bench.outbox().retry_policy(policy);
            let mut tx = bench.place.pool.begin().await.unwrap();
            for n in 0..3 {
                outbox.publish_in(&mut tx, note(&format!("{n}"))).await.unwrap();
            }
            let nowhere = Outgoing::to_queue("nowhere", "Note", "x");
            outbox.publish_in(&mut tx, nowhere).await.unwrap();
            tx.commit().await.unwrap();
            bench.broker.drop_next_confirms(1);
            let sending = bench.send_with(outbox.clone()).await;
            until("one row is left, and dead", async || {
                bench.rows().await == 1 && outbox.dead(1).await.unwrap().len() == 1
            })
            .await;
            sending.abort();
            // The rows are counted when a sender starts.
            let sending = bench.send_with(outbox.clone()).await;
            let mut told = Told::default();
            until("the rows are counted", async || {
                told.look(&snapshotter);
                told.value("mmate_outbox_dead[]") > 0.5
            })
            .await;
            sending.abort();
            let counts = [
                ("mmate_outbox_written_total[]", 4.0),
                ("mmate_outbox_sent_total[]", 3.0),
                ("mmate_outbox_failed_total[unknown]", 1.0),
                ("mmate_outbox_failed_total[unroutable]", 2.0),
                ("mmate_outbox_given_up_total[]", 1.0),
                ("mmate_outbox_dead[]", 1.0),
                ("mmate_outbox_pending[]", 0.0),
            ];
            for (name, expected) in counts {
                assert!((told.value(name) - expected).abs() < 0.5, "{name}: {:?}", told.0);
            }
            let latency = told.value("mmate_outbox_latency_seconds[]");
            assert!(latency > 0.0 && latency < 600.0, "{latency}");
        });
    });
}
