//! What the strategies count.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use metrics_util::CompositeKey;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use mmate_core::{
    HandlerError, InProcess, Outgoing, Reply, RetryPolicy, Running, Service, Subscription,
};
use mmate_idempotency::protocol::Digest;
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey};
use mmate_idempotency::{Idempotent, MemoryStore, Permit, Store, Tracked};
use tokio::time::sleep;

/// Runs a case with a recorder of its own and with time that passes when nothing else happens.
fn measured<F: Future<Output = ()>>(case: impl FnOnce(Snapshotter) -> F) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(case(snapshotter));
    });
}

/// The counters so far, by name and labels, since the last look.
fn counters(snapshotter: &Snapshotter) -> Vec<(String, u64)> {
    let snapshot = snapshotter.snapshot().into_vec();
    let counters = snapshot.into_iter().filter_map(|(key, _, _, value)| {
        let DebugValue::Counter(count) = value else { return None };
        let labels: Vec<_> = key.key().labels().map(|l| l.value().to_owned()).collect();
        Some((format!("{}[{}]", key.key().name(), labels.join(",")), count))
    });
    counters.filter(|(name, count)| *count > 0 && name.starts_with("mmate_")).collect()
}

fn count(counters: &[(String, u64)], name: &str) -> u64 {
    counters.iter().find(|(had, _)| had == name).map_or(0, |(_, count)| *count)
}

async fn start(broker: &InProcess, subscription: Subscription) -> Running {
    Service::new("s").subscribe(subscription).start(broker.clone()).await.unwrap()
}

async fn publish(running: &Running, id: &str) {
    let message = Outgoing::event("thing.made.eu", "Thing", "payload").id_text(id);
    running.publisher().publish(message).await.unwrap();
}

fn request(lease: Duration) -> ClaimRequest<'static> {
    let key = RecordKey::new("s/q", "a").unwrap();
    ClaimRequest::new(key, Claimant { subscription: "q", ..Claimant::default() }, lease)
}

fn things(strategy: Tracked) -> mmate_core::SubscriptionBuilder {
    Subscription::per_service("q", ["thing.#"])
        .retry(RetryPolicy::fixed(Duration::from_millis(10)))
        .idempotent(strategy)
}

#[test]
fn claims_are_counted_by_verdict() {
    measured(async |snapshotter| {
        let broker = InProcess::new();
        let store = MemoryStore::new();
        let died = request(Duration::from_secs(10));
        store.claim(&died).await.unwrap();
        let handler = async || Ok::<(), HandlerError>(());
        let running = start(&broker, things(Tracked::new(store)).handler(handler)).await;
        publish(&running, "a").await;
        publish(&running, "b").await;
        sleep(Duration::from_secs(60)).await;
        publish(&running, "b").await;
        let other = Outgoing::event("thing.made.eu", "Thing", "another").id_text("b");
        running.publisher().publish(other).await.unwrap();
        broker.idle().await;
        let counters = counters(&snapshotter);
        assert_eq!(count(&counters, "mmate_claims_total[memory,granted]"), 1, "{counters:?}");
        assert_eq!(count(&counters, "mmate_claims_total[memory,taken-over]"), 1);
        assert_eq!(count(&counters, "mmate_claims_total[memory,duplicate]"), 1);
        assert_eq!(count(&counters, "mmate_claims_total[memory,conflict]"), 1);
        assert!(count(&counters, "mmate_claims_total[memory,busy]") >= 1);
    });
}

/// S19
#[test]
fn a_lost_lease_is_counted() {
    measured(async |snapshotter| {
        let broker = InProcess::new();
        let store = MemoryStore::new();
        let handler = {
            let store = store.clone();
            // Gives its own claim back, so that its next heartbeat is refused.
            move |permit: Permit| {
                let store = store.clone();
                async move {
                    if permit.attempt() == 1 {
                        store.release(&permit).await?;
                        sleep(Duration::from_secs(3600)).await;
                    }
                    Ok::<(), HandlerError>(())
                }
            }
        };
        let running = start(&broker, things(Tracked::new(store)).handler(handler)).await;
        publish(&running, "a").await;
        broker.idle().await;
        let counters = counters(&snapshotter);
        assert_eq!(count(&counters, "mmate_leases_lost_total[memory]"), 1, "{counters:?}");
        assert_eq!(count(&counters, "mmate_uncertain_total[memory]"), 0);
        let counts = running.stats().total();
        assert_eq!((counts.deferred, counts.succeeded, counts.retried), (1, 1, 0));
    });
}

/// S15
#[test]
fn what_is_uncertain_is_counted() {
    measured(async |snapshotter| {
        let broker = InProcess::new();
        let store = MemoryStore::new();
        let handler = {
            let store = store.clone();
            // Gives its own claim back, so that completing it is refused.
            move |permit: Permit| {
                let store = store.clone();
                async move {
                    if permit.attempt() == 1 {
                        store.release(&permit).await?;
                    }
                    Ok::<(), HandlerError>(())
                }
            }
        };
        let running = start(&broker, things(Tracked::new(store)).handler(handler)).await;
        publish(&running, "a").await;
        broker.idle().await;
        let counters = counters(&snapshotter);
        assert_eq!(count(&counters, "mmate_uncertain_total[memory]"), 1, "{counters:?}");
        assert_eq!(count(&counters, "mmate_stale_calls_total[memory,complete]"), 1, "{counters:?}");
        assert_eq!(count(&counters, "mmate_leases_lost_total[memory]"), 1, "{counters:?}");
        let counts = running.stats().total();
        assert_eq!((counts.deferred, counts.succeeded), (1, 1));
    });
}

/// S39
#[test]
fn records_are_purged_in_the_background_and_counted() {
    measured(async |snapshotter| {
        let broker = InProcess::new();
        let store = MemoryStore::new().window(Duration::from_secs(3600));
        let handler = async || Ok::<(), HandlerError>(());
        let running = start(&broker, things(Tracked::new(store.clone())).handler(handler)).await;
        for n in 0..1_200 {
            publish(&running, &format!("{n}")).await;
        }
        broker.idle().await;
        assert_eq!(store.len(), 1_200);
        sleep(Duration::from_secs(3600 + 120)).await;
        assert_eq!(store.len(), 0);
        let counters = counters(&snapshotter);
        assert_eq!(count(&counters, "mmate_records_purged_total[memory]"), 1_200, "{counters:?}");
        running.stop().await.unwrap();
    });
}

/// S41
#[test]
fn evictions_are_counted() {
    measured(async |snapshotter| {
        let broker = InProcess::new();
        let store = MemoryStore::new().capacity(10);
        let handler = async || Ok::<(), HandlerError>(());
        let running = start(&broker, things(Tracked::new(store)).handler(handler)).await;
        for n in 0..30 {
            publish(&running, &format!("{n}")).await;
        }
        broker.idle().await;
        let counters = counters(&snapshotter);
        assert_eq!(count(&counters, "mmate_records_evicted_total[memory]"), 20, "{counters:?}");
        running.stop().await.unwrap();
    });
}

#[test]
fn calls_are_timed_and_claims_that_are_held_are_shown() {
    measured(async |snapshotter| {
        let broker = InProcess::new();
        let handler = async || {
            sleep(Duration::from_secs(10)).await;
            Ok::<(), HandlerError>(())
        };
        let running =
            start(&broker, things(Tracked::new(MemoryStore::new())).handler(handler)).await;
        for id in ["a", "b"] {
            publish(&running, id).await;
        }
        sleep(Duration::from_secs(1)).await;
        // A look begins everything anew.
        let look = || snapshotter.snapshot().into_vec();
        let held = |snapshot: &[(_, _, _, DebugValue)]| {
            let is_held = |key: &CompositeKey| key.key().name() == "mmate_claims_held";
            snapshot.iter().find(|(key, ..)| is_held(key)).map(|(.., value)| format!("{value:?}"))
        };
        assert_eq!(held(&look()).as_deref(), Some("Gauge(2.0)"));
        broker.idle().await;
        let snapshot = look();
        assert_eq!(held(&snapshot).as_deref(), Some("Gauge(-2.0)"), "both were let go");
        let completions = snapshot.iter().find_map(|(key, _, _, value)| {
            let is_complete = key.key().labels().any(|label| label.value() == "complete");
            match value {
                DebugValue::Histogram(times) if is_complete => Some(times.len()),
                _ => None,
            }
        });
        assert_eq!(completions, Some(2));
        running.stop().await.unwrap();
    });
}

#[test]
fn runs_are_counted_by_how_they_ended() {
    measured(async |snapshotter| {
        let once = Idempotent::new(MemoryStore::new()).value_limit(10).wait(Duration::ZERO);
        let run = |id: &str, ends: Result<String, Failed>| {
            let key = RecordKey::new("scope", id).unwrap();
            once.run(key, Digest::of(id.to_owned() + "x"), async { ends }).into_future()
        };
        run("a", Err(Failed)).await.unwrap_err();
        run("a", Ok("1".to_owned())).await.unwrap();
        run("a", Ok("2".to_owned())).await.unwrap();
        run("b", Ok("x".repeat(11))).await.unwrap_err();
        run("b", Ok("1".to_owned())).await.unwrap_err();
        let key = RecordKey::new("scope", "a").unwrap();
        let other = once.run(key, Digest::of("y"), async { Ok::<_, Failed>(1) });
        other.await.unwrap_err();
        let counters = counters(&snapshotter);
        for (ended, times) in
            [("failed", 1), ("fresh", 1), ("replayed", 1), ("no-value", 2), ("conflict", 1)]
        {
            let name = format!("mmate_runs_total[memory,{ended}]");
            assert_eq!(count(&counters, &name), times, "{name} in {counters:?}");
        }
        assert_eq!(count(&counters, "mmate_replies_not_kept_total[memory]"), 1, "{counters:?}");
    });
}

#[derive(Debug, thiserror::Error)]
#[error("failed")]
struct Failed;

#[test]
fn a_reply_that_is_too_large_to_be_kept_is_counted() {
    measured(async |snapshotter| {
        let broker = InProcess::new();
        let handler = async || Ok::<_, HandlerError>(Reply("too large for that"));
        let strategy = Tracked::new(MemoryStore::new()).reply_limit(10);
        let queries = Subscription::queries("q", ["Query"]).idempotent(strategy).handler(handler);
        let running = start(&broker, queries).await;
        let question = running.publisher().request::<String>(Outgoing::query("Query", &1));
        question.await.unwrap();
        let counters = counters(&snapshotter);
        assert_eq!(count(&counters, "mmate_replies_not_kept_total[memory]"), 1, "{counters:?}");
        running.stop().await.unwrap();
    });
}
