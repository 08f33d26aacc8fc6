//! Batches in one transaction.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{
    Batch, BatchItem, BatchOutcome, BatchPolicy, Chaos, HandlerError, InProcess, MessageId,
    Outgoing, Publisher, RetryPolicy, Running, Service, Subscription,
};
use mmate_idempotency::{GroupCommit, MemoryStore, Tracked, Tx};
use sqlx::Sqlite;
use tokio::sync::Semaphore;

use crate::bench::{Bench, counts_when, ended};

/// The ids of each batch that a handler was given.
type Handled = Arc<Mutex<Vec<Vec<String>>>>;

fn ids(batch: &Batch<String>) -> Vec<String> {
    batch.iter().map(id).collect()
}

fn id(item: &BatchItem<String>) -> String {
    item.meta().id.as_ref().map(MessageId::to_string).unwrap_or_default()
}

async fn insert(ids: &[String], tx: &mut Tx<Sqlite>) -> sqlx::Result<()> {
    let mut insert = sqlx::QueryBuilder::new("INSERT INTO effects (id) ");
    insert.push_values(ids, |mut row, id| {
        row.push_bind(id);
    });
    insert.build().execute(&mut **tx).await.map(drop)
}

/// Batches of up to so many. The handler has its effect, and then does this.
fn batched<F, Fut>(bench: &Bench, size: usize, handled: &Handled, then: F) -> Subscription
where
    F: Fn(Batch<String>, Tx<Sqlite>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BatchOutcome, HandlerError>> + Send,
{
    let (handled, then) = (Arc::clone(handled), Arc::new(then));
    let handler = move |batch: Batch<String>, mut tx: Tx<Sqlite>| {
        let (handled, then) = (Arc::clone(&handled), Arc::clone(&then));
        async move {
            let ids = ids(&batch);
            handled.lock().unwrap().push(ids.clone());
            insert(&ids, &mut tx).await?;
            then(batch, tx).await
        }
    };
    let policy = BatchPolicy::up_to(size).within(Duration::from_secs(1));
    bench
        .builder()
        .concurrency(1)
        .timeout(Duration::from_millis(500))
        .idempotent(bench.strategy(GroupCommit::default().in_flight(1)))
        .batch_handler(policy, handler)
}

async fn start(bench: &Bench, subscription: Subscription) -> Running {
    bench.start_with(subscription, Duration::from_secs(20)).await
}

async fn all_done(_: Batch<String>, _: Tx<Sqlite>) -> Result<BatchOutcome, HandlerError> {
    Ok(BatchOutcome::done())
}

/// S26, S27, S50: one handling and one commit; copies are settled each on its own.
#[tokio::test]
async fn a_batch_with_duplicates_is_one_transaction_of_the_others() {
    let bench = Bench::new().await;
    let handled = Handled::default();
    let running = start(&bench, batched(&bench, 2, &handled, all_done)).await;
    bench.publish(running.publisher(), &["a", "b"]).await;
    counts_when(&[&running], |counts| counts.succeeded == 2).await;
    running.stop().await.unwrap();

    let running = start(&bench, batched(&bench, 6, &handled, all_done)).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    {
        let (seen, broker, queue) = (Arc::clone(&seen), bench.broker.clone(), bench.queue());
        bench.hooks.before_each_commit(move || {
            seen.lock().unwrap().push(broker.inner().queue(&queue).unwrap().unacked);
        });
    }
    bench.publish(running.publisher(), &["a", "c", "d", "c", "b", "e"]).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 6).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (3, 3));
    assert_eq!((counts.retried, counts.deferred), (0, 0));
    assert_eq!(*handled.lock().unwrap(), [vec!["a", "b"], vec!["c", "d", "e"]]);
    assert_eq!(bench.effects().await, ["a", "b", "c", "d", "e"]);
    assert_eq!(bench.records().await, ["a", "b", "c", "d", "e"]);
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 1);
    assert!(seen[0] >= 4, "c, its copy, d and e are not acknowledged before: {seen:?}");
    running.stop().await.unwrap();
    bench.assert_no_connection_is_dirty().await;
}

/// The batch, then each alone, then the second attempt of the bad one.
fn assert_bad_was_found(handled: &Handled) {
    let handled = handled.lock().unwrap();
    let expected = [vec!["a", "bad", "c"], vec!["a"], vec!["bad"], vec!["c"], vec!["bad"]];
    assert_eq!(*handled, expected);
}

async fn assert_only_bad_fails<F, Fut>(then: F)
where
    F: Fn(Batch<String>, Tx<Sqlite>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BatchOutcome, HandlerError>> + Send,
{
    let bench = Bench::new().await;
    let handled = Handled::default();
    let running = start(&bench, batched(&bench, 3, &handled, then)).await;
    bench.publish(running.publisher(), &["a", "bad", "c"]).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 3).await;
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (2, 1, 1));
    assert_bad_was_found(&handled);
    assert_eq!(bench.effects().await, ["a", "c"]);
    assert_eq!(bench.records().await, ["a", "c"]);
    running.stop().await.unwrap();
    bench.assert_no_connection_is_dirty().await;
}

fn has_bad(batch: &Batch<String>) -> bool {
    batch.iter().any(|item| id(item) == "bad")
}

/// S27
#[tokio::test]
async fn of_a_batch_that_fails_each_is_handled_alone() {
    assert_only_bad_fails(async |batch, _| match has_bad(&batch) {
        true => Err(HandlerError::retryable("no")),
        false => Ok(BatchOutcome::done()),
    })
    .await;
}

/// One transaction cannot keep the effect of one and undo that of another.
#[tokio::test]
async fn of_a_batch_with_one_that_is_not_done_each_is_handled_alone() {
    assert_only_bad_fails(async |batch, _| {
        let mut outcome = BatchOutcome::done();
        for item in batch.iter().filter(|item| id(item) == "bad") {
            outcome.fail(item, HandlerError::retryable("no"));
        }
        Ok(outcome)
    })
    .await;
}

/// S11
#[tokio::test]
async fn of_a_batch_that_panics_each_is_handled_alone() {
    assert_only_bad_fails(async |batch, _| {
        assert!(!has_bad(&batch), "as the test wants it");
        Ok(BatchOutcome::done())
    })
    .await;
}

/// S11
#[tokio::test]
async fn of_a_batch_that_takes_too_long_each_is_handled_alone() {
    assert_only_bad_fails(async |batch, _| {
        if has_bad(&batch) {
            std::future::pending::<()>().await;
        }
        Ok(BatchOutcome::done())
    })
    .await;
}

#[tokio::test]
async fn of_a_batch_that_keeps_its_transaction_each_is_handled_alone() {
    assert_only_bad_fails(async |batch, tx| {
        if has_bad(&batch) {
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                drop(tx);
            });
        }
        Ok(BatchOutcome::done())
    })
    .await;
}

/// What cannot be decoded is dead-lettered alone, and makes nobody run twice.
#[tokio::test]
async fn what_cannot_be_decoded_is_no_business_of_the_batch() {
    let bench = Bench::new().await;
    let handled = Handled::default();
    let running = start(&bench, batched(&bench, 3, &handled, all_done)).await;
    bench.publish(running.publisher(), &["a"]).await;
    let number = Outgoing::event(format!("{}.made", bench.service), "Thing", &7).id_text("bad");
    running.publisher().publish(number).await.unwrap();
    bench.publish(running.publisher(), &["c"]).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 3).await;
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (2, 0, 1));
    let mut ran = handled.lock().unwrap().concat();
    ran.sort_unstable();
    assert_eq!(ran, ["a", "c"], "each ran once");
    assert_eq!(bench.records().await, ["a", "c"]);
    running.stop().await.unwrap();
    bench.assert_no_connection_is_dirty().await;
}

#[tokio::test]
async fn a_batch_handler_that_commits_by_itself_is_not_repeated() {
    for fails in [false, true] {
        let bench = Bench::new().await;
        let handled = Handled::default();
        let subscription = batched(&bench, 3, &handled, move |_, mut tx| async move {
            sqlx::query("COMMIT").execute(&mut *tx).await?;
            match fails {
                true => Err(HandlerError::retryable("afterwards")),
                false => Ok(BatchOutcome::done()),
            }
        });
        let running = start(&bench, subscription).await;
        bench.publish(running.publisher(), &["a", "b", "c"]).await;
        let counts = counts_when(&[&running], |counts| ended(counts) == 3).await;
        assert_eq!(counts.dead_lettered, 0, "{counts:?}");
        assert_eq!(bench.effects().await, ["a", "b", "c"]);
        assert_eq!(bench.records().await, ["a", "b", "c"]);
        running.stop().await.unwrap();
        bench.assert_no_connection_is_dirty().await;
    }
}

/// S49: what has gathered is handled without waiting for more.
#[tokio::test]
async fn a_drain_flushes_the_batch() {
    let bench = Bench::new().await;
    let handled = Handled::default();
    let handler = {
        let handled = Arc::clone(&handled);
        move |batch: Batch<String>, mut tx: Tx<Sqlite>| {
            let handled = Arc::clone(&handled);
            async move {
                handled.lock().unwrap().push(ids(&batch));
                insert(&ids(&batch), &mut tx).await
            }
        }
    };
    let policy = BatchPolicy::up_to(100).within(Duration::from_secs(3600));
    let strategy = bench.strategy(GroupCommit::default());
    let subscription = bench.builder().idempotent(strategy).batch_handler(policy, handler);
    let running = start(&bench, subscription).await;
    bench.publish(running.publisher(), &["a", "b", "c"]).await;
    counts_when(&[&running], |counts| counts.in_flight == 3).await;
    let stats = running.stats().clone();
    running.stop().await.unwrap();
    assert_eq!(stats.total().succeeded, 3, "{:?}", stats.total());
    assert_eq!(bench.effects().await.len(), 3);
    let ran: Vec<_> = handled.lock().unwrap().concat();
    assert_eq!(ran.len(), 3, "{ran:?}");
}

/// A strategy without group commit has transactions of batches as well, and subscriptions that share
/// it have batches of their own.
#[tokio::test]
async fn subscriptions_that_share_a_strategy_have_batches_of_their_own() {
    let bench = Bench::new().await;
    let strategy = mmate_idempotency::Transactional::new(bench.pool.clone());
    let handled = Handled::default();
    let subscribe = |name: &'static str| {
        let handled = Arc::clone(&handled);
        let handler = move |batch: Batch<String>, mut tx: Tx<Sqlite>| {
            let handled = Arc::clone(&handled);
            async move {
                let ids: Vec<_> = ids(&batch).iter().map(|id| format!("{name} {id}")).collect();
                handled.lock().unwrap().push(ids.clone());
                insert(&ids, &mut tx).await
            }
        };
        let policy = BatchPolicy::up_to(3).within(Duration::from_secs(5));
        Subscription::per_service(name, [format!("{}.#", bench.service)])
            .idempotent(strategy.clone())
            .batch_handler(policy, handler)
    };
    let service = Service::new(bench.service.as_str());
    let service = service.subscribe(subscribe("one")).subscribe(subscribe("two"));
    let running = service.start(bench.broker.clone()).await.unwrap();
    bench.publish(running.publisher(), &["a", "b", "c"]).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 6).await;
    assert_eq!(counts.succeeded, 6);
    let mut batches = handled.lock().unwrap().clone();
    batches.sort_unstable();
    assert_eq!(batches, [["one a", "one b", "one c"], ["two a", "two b", "two c"]]);
    running.stop().await.unwrap();
}

/// S16, S24: the service is dropped somewhere around a batch's commit.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_cuts_around_the_commit_of_a_batch_none_loses_and_none_doubles() {
    const CUTS: usize = 150;
    let bench = Bench::new().await;
    let publisher = Publisher::connect(&bench.broker, "p").await.unwrap();
    let mut random = fastrand::Rng::with_seed(24);
    let (handled, returned) = (Handled::default(), Arc::new(Semaphore::new(0)));
    let subscription = || {
        let returned = Arc::clone(&returned);
        batched(&bench, 4, &handled, move |_, _| {
            let returned = Arc::clone(&returned);
            async move {
                returned.add_permits(1);
                Ok(BatchOutcome::done())
            }
        })
    };
    start(&bench, subscription()).await.stop().await.unwrap();
    for cut in 0..CUTS {
        for n in 0..4 {
            bench.publish(&publisher, &[&format!("{cut}-{n}")]).await;
        }
        let running = start(&bench, subscription()).await;
        returned.acquire().await.unwrap().forget();
        for _ in 0..random.usize(0..60) {
            tokio::task::yield_now().await;
        }
        drop(running);
        while let Ok(permit) = returned.try_acquire() {
            permit.forget();
        }
    }
    let running = start(&bench, subscription()).await;
    tokio::time::timeout(Duration::from_secs(120), bench.broker.inner().idle()).await.unwrap();
    let effects = bench.effects().await;
    let distinct: HashSet<_> = effects.iter().collect();
    assert_eq!((effects.len(), distinct.len()), (CUTS * 4, CUTS * 4), "none lost, none doubled");
    let ran = handled.lock().unwrap().concat().len();
    assert!(ran > CUTS * 4 + 10, "{} had run and were rolled back", ran - CUTS * 4);
    running.stop().await.unwrap();
    bench.assert_no_connection_is_dirty().await;
}

/// S47: duplicates, lost acknowledgements and failures of every kind.
#[tokio::test(flavor = "multi_thread")]
async fn under_chaos_batches_lose_nothing_and_double_nothing() {
    const MESSAGES: usize = 300;
    let bench = Bench::new().await;
    let handler = async |batch: Batch<String>, mut tx: Tx<Sqlite>| {
        insert(&ids(&batch), &mut tx).await?;
        let mut outcome = BatchOutcome::done();
        for item in &batch {
            match fastrand::u8(0..100) {
                0 => return Err(HandlerError::retryable("now and then")),
                1 => panic!("as the test wants it"),
                2 => std::future::pending::<()>().await,
                3..6 => outcome.fail(item, HandlerError::retryable("this one")),
                _ => {}
            }
        }
        Ok(outcome)
    };
    let policy = BatchPolicy::up_to(8).within(Duration::from_millis(5));
    let subscription = bench
        .builder()
        .concurrency(2)
        .retry(RetryPolicy::fixed(Duration::from_millis(5)).max_attempts(1000))
        .timeout(Duration::from_millis(60))
        .idempotent(bench.strategy(GroupCommit::default()))
        .batch_handler(policy, handler);
    let running = start(&bench, subscription).await;
    let broker = bench.broker.inner();
    broker.chaos(Chaos::new().duplicates(0.2).dropped_acks(0.1).seed(26));
    for n in 0..MESSAGES {
        bench.publish(running.publisher(), &[&format!("{n}")]).await;
    }
    tokio::time::timeout(Duration::from_secs(100), broker.idle()).await.unwrap();
    let counts = counts_when(&[&running], |counts| counts.in_flight == 0).await;
    assert_eq!(counts.succeeded, MESSAGES as u64, "{counts:?}");
    assert!(counts.retried > 0 && counts.duplicates.total() > 0, "{counts:?}");
    let effects = bench.effects().await;
    let distinct: HashSet<_> = effects.iter().collect();
    assert_eq!((effects.len(), distinct.len()), (MESSAGES, MESSAGES));
    running.stop().await.unwrap();
    bench.assert_no_connection_is_dirty().await;
}

#[tokio::test]
async fn a_batch_handler_without_its_transaction_is_told_at_the_start() {
    let handler = async |_: Batch<String>, _: Tx<Sqlite>| Ok::<(), HandlerError>(());
    let subscription = Subscription::per_service("q", ["thing.#"])
        .idempotent(Tracked::new(MemoryStore::new()))
        .batch_handler(BatchPolicy::up_to(10), handler);
    let started = Service::new("s").subscribe(subscription).start(InProcess::new()).await;
    let error = started.map(drop).unwrap_err().to_string();
    assert!(error.contains("takes Tx<Sqlite>"), "{error}");
    assert!(error.contains(".idempotent(Transactional::new(pool))"), "{error}");
}
