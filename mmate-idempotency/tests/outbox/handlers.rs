//! What handlers publish, in their own transactions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{
    Attempt, Envelope, Handler, HandlerError, MessageId, Meta, Outgoing, RetryPolicy, Running,
    Service, Subscription,
};
use mmate_idempotency::{Outbox, Transactional, Tx};
use sqlx::Sqlite;

use crate::bench::{Bench, SINK, arrived, make_queue, note, until};

/// A service whose handler has a transaction and an outbox.
pub(crate) async fn start<H, Args>(bench: &Bench<Sqlite>, handler: H) -> Running
where
    H: Handler<Args>,
    Args: 'static,
{
    start_with(bench, bench.outbox(), handler).await
}

async fn start_with<H, Args>(bench: &Bench<Sqlite>, outbox: Outbox<Sqlite>, handler: H) -> Running
where
    H: Handler<Args>,
    Args: 'static,
{
    let subscription = Subscription::per_service("q", ["thing.#"])
        .retry(RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(3))
        .middleware(outbox)
        .idempotent(Transactional::new(bench.place.pool.clone()))
        .handler(handler);
    let service = Service::new("s").drain_timeout(Duration::ZERO).subscribe(subscription);
    service.start(bench.broker.clone()).await.unwrap()
}

pub(crate) fn thing(id: &str) -> Outgoing {
    Outgoing::event("thing.made.eu", "Thing", "payload").id_text(id)
}

async fn publish(running: &Running, id: &str) {
    running.publisher().publish(thing(id)).await.unwrap();
}

/// S24
#[tokio::test]
async fn what_a_handler_publishes_is_sent_once_at_once_after_the_commit() {
    let bench = Bench::<Sqlite>::new().await;
    let outbox = bench.outbox().sweep_every(Duration::from_secs(3_600));
    // The sender has looked before there is anything, and would look again in an hour.
    let running = start_with(&bench, outbox, async |mut tx: Tx<Sqlite>, outbox: Outbox<Sqlite>| {
        outbox.publish(&mut tx, note("a")).await?;
        outbox.publish(&mut tx, note("b")).await?;
        Ok::<(), HandlerError>(())
    })
    .await;
    for _ in 0..3 {
        publish(&running, "1").await;
    }
    bench.broker.idle().await;
    bench.emptied().await;
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 2));
    let mut payloads = bench.payloads();
    payloads.sort();
    assert_eq!(payloads, ["a", "b"]);
    running.stop().await.unwrap();
}

/// S24
#[tokio::test]
async fn a_handler_that_fails_or_is_dropped_sends_nothing() {
    let bench = Bench::<Sqlite>::new().await;
    let running = start(&bench, async |mut tx: Tx<Sqlite>, outbox: Outbox<Sqlite>, meta: Meta| {
        outbox.publish(&mut tx, note("never")).await?;
        if meta.id.is_some_and(|id| id.as_str() == "panics") {
            std::panic::panic_any("as the test wants it");
        }
        Err::<(), _>(HandlerError::permanent("after it was written"))
    })
    .await;
    publish(&running, "fails").await;
    publish(&running, "panics").await;
    bench.broker.idle().await;
    assert_eq!(running.stats().total().dead_lettered, 2);
    running.stop().await.unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let running = {
        let written = Arc::clone(&written);
        start(&bench, move |mut tx: Tx<Sqlite>, outbox: Outbox<Sqlite>| {
            let written = Arc::clone(&written);
            async move {
                outbox.publish(&mut tx, note("never")).await?;
                written.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<Result<(), HandlerError>>().await
            }
        })
        .await
    };
    publish(&running, "is dropped").await;
    until("it is written", async || written.load(Ordering::SeqCst) == 1).await;
    running.stop().await.unwrap();
    // The stop has sent all there was to send.
    assert_eq!((bench.rows().await, bench.arrived()), (0, vec![]));
}

/// S28
#[tokio::test]
async fn ids_are_the_same_when_the_handler_runs_again_and_belong_to_the_conversation() {
    let bench = Bench::<Sqlite>::new().await;
    let ids = Arc::new(Mutex::new(Vec::new()));
    let running = {
        let ids = Arc::clone(&ids);
        start(&bench, move |mut tx: Tx<Sqlite>, outbox: Outbox<Sqlite>, attempt: Attempt| {
            let ids = Arc::clone(&ids);
            async move {
                for payload in ["a", "b"] {
                    let id = outbox.publish(&mut tx, note(payload)).await?;
                    ids.lock().unwrap().push(id);
                }
                if attempt.0 < 3 {
                    return Err(HandlerError::retryable("not yet"));
                }
                Ok(())
            }
        })
        .await
    };
    let conversation = "conversation".parse().unwrap();
    running.publisher().publish(thing("parent").correlation_id(conversation)).await.unwrap();
    bench.broker.idle().await;
    bench.emptied().await;
    let ids = ids.lock().unwrap().clone();
    let parent: MessageId = "parent".parse().unwrap();
    let (a, b) = (parent.child("s/q", 0), parent.child("s/q", 1));
    let twice = [a.clone(), b.clone()];
    assert_eq!(ids, [&twice[..], &twice[..], &twice[..]].concat());
    let mut arrived = bench.arrived();
    arrived.sort_by(|one, other| one.payload.cmp(&other.payload));
    assert_eq!(arrived.len(), 2);
    assert_eq!((arrived[0].id.as_str(), arrived[1].id.as_str()), (a.as_str(), b.as_str()));
    for message in bench.broker.messages(SINK) {
        let envelope = Envelope::from_json(message.body.clone()).unwrap();
        assert_eq!(envelope.causation_id.unwrap().as_str(), "parent");
        assert_eq!(envelope.correlation_id.unwrap().as_str(), "conversation");
        assert_eq!(message.properties.correlation_id.as_deref(), Some("conversation"));
        assert_eq!(message.properties.app_id.as_deref(), Some("s"));
    }
    running.stop().await.unwrap();
}

/// S28: however the handler comes to the outbox, the ids are those of its transaction's message.
#[tokio::test]
async fn an_outbox_that_the_handler_had_before_gives_the_same_ids_as_its_argument() {
    let bench = Bench::<Sqlite>::new().await;
    let outbox = bench.outbox();
    let captured = outbox.clone();
    let running = start_with(&bench, outbox, move |mut tx: Tx<Sqlite>| {
        let outbox = captured.clone();
        async move { outbox.publish(&mut tx, note("a")).await.map(drop) }
    })
    .await;
    publish(&running, "parent").await;
    bench.broker.idle().await;
    bench.emptied().await;
    let parent: MessageId = "parent".parse().unwrap();
    assert_eq!(bench.arrived()[0].id, parent.child("s/q", 0).as_str());
    running.stop().await.unwrap();
}

/// S29
#[tokio::test]
async fn publishing_that_fails_after_the_commit_is_resumed_without_running_the_handler() {
    let bench = Bench::<Sqlite>::new().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let policy = RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(1_000);
    let outbox = bench.outbox().retry_policy(policy);
    let running = {
        let runs = Arc::clone(&runs);
        start_with(&bench, outbox, move |mut tx: Tx<Sqlite>, outbox: Outbox<Sqlite>| {
            runs.fetch_add(1, Ordering::SeqCst);
            async move {
                outbox.publish(&mut tx, note("taken")).await?;
                let refused = Outgoing::to_queue("later", "Note", "refused at first");
                outbox.publish(&mut tx, refused).await.map(drop)
            }
        })
        .await
    };
    publish(&running, "1").await;
    bench.broker.idle().await;
    let attempts = "SELECT attempts FROM outbox_messages";
    let attempts = attempts.replace("outbox_messages", &bench.place.table);
    let attempts = async || {
        let sql = sqlx::AssertSqlSafe(attempts.clone());
        let left: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&bench.place.pool).await.unwrap();
        left
    };
    until("it failed a few times", async || matches!(attempts().await[..], [n] if n > 2)).await;
    make_queue(&bench.broker, "later").await;
    bench.emptied().await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    // What was confirmed before was not sent again.
    assert_eq!(bench.payloads(), ["taken"]);
    assert_eq!(arrived(&bench.broker, "later").len(), 1);
    running.stop().await.unwrap();
}

/// S29, S12: the process dies after the commit, with nothing sent and nothing acknowledged.
#[tokio::test]
async fn what_a_process_that_died_after_its_commit_left_is_sent_by_another_instance() {
    let bench = Bench::<Sqlite>::new().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let handler = || {
        let (runs, broker) = (Arc::clone(&runs), bench.broker.clone());
        move |mut tx: Tx<Sqlite>, outbox: Outbox<Sqlite>| {
            let (runs, broker) = (Arc::clone(&runs), broker.clone());
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                outbox.publish(&mut tx, note("a")).await?;
                broker.pause();
                Ok::<(), HandlerError>(())
            }
        }
    };
    let outbox = || bench.outbox().lease(Duration::from_millis(500));
    let running = start_with(&bench, outbox(), handler()).await;
    publish(&running, "1").await;
    until("it is committed", async || bench.rows().await == 1).await;
    drop(running);
    bench.broker.resume();
    let other = start_with(&bench, outbox(), handler()).await;
    bench.broker.idle().await;
    bench.emptied().await;
    let counts = other.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.total()), (0, 1));
    assert_eq!((runs.load(Ordering::SeqCst), bench.payloads().len()), (1, 1));
    other.stop().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_takes_an_outbox_that_nobody_gives_is_told_at_the_start() {
    let bench = Bench::<Sqlite>::new().await;
    let handler = async |_: Outbox<Sqlite>| Ok::<(), HandlerError>(());
    let subscription = Subscription::per_service("q", ["thing.#"]).handler(handler);
    let service = Service::new("s").subscribe(subscription);
    let error = service.start(bench.broker.clone()).await.unwrap_err().to_string();
    assert!(error.contains("Outbox<Sqlite>"), "{error}");
    assert!(error.contains(".middleware(Outbox::new(pool))"), "{error}");
}

#[tokio::test]
async fn a_table_of_another_shape_keeps_the_service_from_starting() {
    let bench = Bench::<Sqlite>::new().await;
    sqlx::query("CREATE TABLE wrong (seq INTEGER)").execute(&bench.place.pool).await.unwrap();
    let outbox = bench.outbox().table("wrong").unwrap();
    let subscription = Subscription::per_service("q", ["thing.#"])
        .middleware(outbox)
        .handler(async || Ok::<(), HandlerError>(()));
    let service = Service::new("s").subscribe(subscription);
    let error = service.start(bench.broker.clone()).await.unwrap_err();
    let error = mmate_core::error_chain(&error);
    assert!(error.contains("another shape"), "{error}");
}
