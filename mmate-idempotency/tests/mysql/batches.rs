//! Batches in one transaction.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{Batch, BatchPolicy, Chaos, HandlerError, RetryPolicy, Service, Subscription};
use mmate_idempotency::Tx;
use sqlx::MySql;

use crate::bench::{Bench, done};

/// S24, S26, S47: under duplicates, lost acknowledgements and failures each has its effect once, by statements that have
/// several rows.
#[tokio::test(flavor = "multi_thread")]
async fn under_chaos_batches_lose_nothing_and_double_nothing() {
    const MESSAGES: i64 = 200;
    let bench = Bench::new().await;
    let largest = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&largest);
    let handler = move |batch: Batch<String>, mut tx: Tx<MySql>| {
        let seen = Arc::clone(&seen);
        async move {
            let count = batch.len();
            let ids = batch.iter().filter_map(|item| item.meta().id.as_ref());
            let mut insert = sqlx::QueryBuilder::new("INSERT INTO effects (id) ");
            insert.push_values(ids, |mut row, id| {
                row.push_bind(id.as_str());
            });
            insert.build().execute(&mut *tx).await?;
            match fastrand::u8(0..20) {
                0 => return Err(HandlerError::retryable("now and then")),
                1 => panic!("as the test wants it"),
                _ => {}
            }
            let mut largest = seen.lock().unwrap();
            *largest = count.max(*largest);
            Ok(())
        }
    };
    let subscription = Subscription::per_service("q", ["thing.#"])
        .retry(RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(1_000))
        .concurrency(2)
        .idempotent(bench.strategy())
        .batch_handler(BatchPolicy::up_to(8).within(Duration::from_millis(100)), handler);
    let service = Service::new("s").subscribe(subscription);
    let running = service.start(bench.broker.clone()).await.unwrap();
    bench.broker.chaos(Chaos::new().duplicates(0.2).dropped_acks(0.1).seed(26));
    for n in 0..MESSAGES {
        bench.publish(&running, &n.to_string()).await;
    }
    let counts = done(&bench, &running).await;
    assert_eq!(counts.succeeded, MESSAGES.unsigned_abs(), "{counts:?}");
    assert!(counts.duplicates.total() > 0, "{counts:?}");
    assert_eq!((bench.effects().await, bench.records().await), (MESSAGES, MESSAGES));
    let distinct = sqlx::query_scalar::<_, i64>("SELECT count(DISTINCT id) FROM effects");
    assert_eq!(distinct.fetch_one(&bench.pool).await.unwrap(), MESSAGES);
    assert!(*largest.lock().unwrap() > 1);
    bench.assert_no_connection_is_dirty().await;
}
