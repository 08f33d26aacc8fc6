//! Batches in one transaction.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{
    Batch, BatchItem, BatchOutcome, BatchPolicy, Chaos, HandlerError, MessageId, RetryPolicy,
    Running, Service, Subscription,
};
use mmate_idempotency::Tx;
use sqlx::Connection;

use crate::bench::{Bench, done, thing};
use crate::place::{Place, on_every_database};

on_every_database! {
    a_batch_is_one_statement_and_one_commit,
    of_a_batch_that_fails_in_the_database_each_is_handled_alone,
    a_batch_that_leaves_a_savepoint_open_commits_nothing,
    under_chaos_batches_lose_nothing_and_double_nothing,
}

/// The ids of each batch that a handler was given.
type Handled = Arc<Mutex<Vec<Vec<String>>>>;

fn ids(batch: &Batch<String>) -> Vec<String> {
    let id = |item: &BatchItem<String>| item.meta().id.as_ref().map(MessageId::to_string);
    batch.iter().filter_map(id).collect()
}

/// One statement for all of them.
async fn effects_of<DB: Place>(ids: &[String], tx: &mut Tx<DB>) -> sqlx::Result<()> {
    let rows: Vec<_> = ids.iter().map(|id| format!("('{id}')")).collect();
    DB::run(tx, &format!("INSERT INTO effects VALUES {}", rows.join(", "))).await
}

/// Batches of up to so many. The handler has its effect, and then does this.
async fn start<DB: Place, F, Fut>(
    bench: &Bench<DB>,
    size: usize,
    handled: &Handled,
    then: F,
) -> Running
where
    F: Fn(Vec<String>, Tx<DB>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BatchOutcome, HandlerError>> + Send,
{
    let (handled, then) = (Arc::clone(handled), Arc::new(then));
    let handler = move |batch: Batch<String>, mut tx: Tx<DB>| {
        let (handled, then) = (Arc::clone(&handled), Arc::clone(&then));
        async move {
            let ids = ids(&batch);
            handled.lock().unwrap().push(ids.clone());
            effects_of(&ids, &mut tx).await?;
            then(ids, tx).await
        }
    };
    let subscription = Subscription::per_service("q", ["thing.#"])
        .retry(RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(1_000))
        .concurrency(2)
        .idempotent(bench.strategy())
        .batch_handler(BatchPolicy::up_to(size).within(Duration::from_secs(1)), handler);
    let service = Service::new("s").drain_timeout(Duration::ZERO).subscribe(subscription);
    service.start(bench.broker.clone()).await.unwrap()
}

async fn publish<DB: Place>(bench: &Bench<DB>, running: &Running, ids: &[&str]) {
    for id in ids {
        bench.publish(running, id).await;
    }
}

/// S24, S26
async fn a_batch_is_one_statement_and_one_commit<DB: Place>(bench: Bench<DB>) {
    let handled = Handled::default();
    let running = start(&bench, 3, &handled, async |_, _| Ok(BatchOutcome::done())).await;
    publish(&bench, &running, &["a", "b", "c"]).await;
    assert_eq!(done(&bench, &running).await.succeeded, 3);
    publish(&bench, &running, &["b", "d", "a", "e", "f"]).await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.duplicates.total(), counts.retried), (6, 2, 0));
    let mut batches = handled.lock().unwrap().clone();
    batches.iter_mut().for_each(|batch| batch.sort_unstable());
    assert_eq!(batches[0], ["a", "b", "c"], "{batches:?}");
    let others: BTreeSet<_> = batches[1..].concat().into_iter().collect();
    assert_eq!(others.into_iter().collect::<Vec<_>>(), ["d", "e", "f"], "{batches:?}");
    assert_eq!(batches.concat().len(), 6, "each once: {batches:?}");
    assert_eq!((bench.effects().await, bench.records().await), (6, 6));
    bench.assert_no_connection_is_dirty().await;
}

/// S25, S27: the database refuses what one of them does, and aborts the transaction, where it is one that does so.
async fn of_a_batch_that_fails_in_the_database_each_is_handled_alone<DB: Place>(bench: Bench<DB>) {
    let handled = Handled::default();
    let running = start(&bench, 3, &handled, async |ids, mut tx: Tx<DB>| {
        if ids.iter().any(|id| id == "bad") {
            let twice = "INSERT INTO parents VALUES (1), (1)";
            DB::run(&mut tx, twice).await.map_err(HandlerError::permanent)?;
        }
        Ok(BatchOutcome::done())
    })
    .await;
    publish(&bench, &running, &["a", "bad", "c"]).await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (2, 0, 1));
    assert_eq!((bench.effects().await, bench.records().await), (2, 2));
    assert_eq!(bench.number("SELECT count(*) FROM effects WHERE id = 'bad'").await, 0);
    bench.assert_no_connection_is_dirty().await;
}

async fn a_batch_that_leaves_a_savepoint_open_commits_nothing<DB: Place>(bench: Bench<DB>) {
    let handled = Handled::default();
    let attempts = Arc::clone(&handled);
    let running = start(&bench, 2, &handled, move |ids, mut tx: Tx<DB>| {
        // Whoever was alone before is content.
        let before = attempts.lock().unwrap().iter().filter(|batch| **batch == ids).count();
        async move {
            if before < 2 {
                std::mem::forget(tx.begin().await?);
            }
            Ok(BatchOutcome::done())
        }
    })
    .await;
    publish(&bench, &running, &["a", "b"]).await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.dead_lettered), (2, 0));
    assert_eq!((bench.effects().await, bench.records().await), (2, 2));
    assert!(handled.lock().unwrap().len() > 3, "{:?}", handled.lock().unwrap());
    bench.assert_no_connection_is_dirty().await;
}

/// S47: duplicates, lost acknowledgements and failures of every kind.
async fn under_chaos_batches_lose_nothing_and_double_nothing<DB: Place>(bench: Bench<DB>) {
    const MESSAGES: i64 = 200;
    let running = start(&bench, 8, &Handled::default(), async |_, _| match fastrand::u8(0..20) {
        0 => Err(HandlerError::retryable("now and then")),
        1 => panic!("as the test wants it"),
        _ => Ok(BatchOutcome::done()),
    })
    .await;
    bench.broker.chaos(Chaos::new().duplicates(0.2).dropped_acks(0.1).seed(26));
    for n in 0..MESSAGES {
        running.publisher().publish(thing(&n.to_string())).await.unwrap();
    }
    let counts = done(&bench, &running).await;
    assert_eq!(counts.succeeded, MESSAGES.unsigned_abs(), "{counts:?}");
    assert!(counts.duplicates.total() > 0, "{counts:?}");
    assert_eq!((bench.effects().await, bench.records().await), (MESSAGES, MESSAGES));
    assert_eq!(bench.number("SELECT count(DISTINCT id) FROM effects").await, MESSAGES);
    bench.assert_no_connection_is_dirty().await;
}
