//! What a handler does with its transaction, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::HandlerError;
use mmate_idempotency::Tx;
use sqlx::{Connection, MySql};
use tokio::sync::Semaphore;

use crate::bench::{Bench, done, effect};

/// S24
#[tokio::test]
async fn effect_and_record_are_written_together() {
    let bench = Bench::new().await;
    let running = bench.start(async |mut tx: Tx<MySql>| effect(&mut tx).await).await;
    bench.publish(&running, "a").await;
    assert_eq!(done(&bench, &running).await.succeeded, 1);
    assert_eq!((bench.effects().await, bench.records().await), (1, 1));
    let row: (String, String, String, String, i64) = sqlx::query_as(
        "SELECT CAST(scope AS CHAR), CAST(message_id AS CHAR), service_name, status, \
         ABS(TIMESTAMPDIFF(SECOND, processed_at, UTC_TIMESTAMP())) FROM processed_messages",
    )
    .fetch_one(&bench.pool)
    .await
    .unwrap();
    assert_eq!((row.0.as_str(), row.1.as_str(), row.2.as_str()), ("s/q", "a", "s"));
    assert_eq!(row.3, "done");
    assert!(row.4 < 60, "{} s from now", row.4);
}

/// S24
#[tokio::test]
async fn an_error_rolls_effect_and_record_back() {
    let bench = Bench::new().await;
    let running = bench
        .start(async |mut tx: Tx<MySql>| {
            effect(&mut tx).await?;
            Err::<(), _>(HandlerError::permanent("after the effect"))
        })
        .await;
    bench.publish(&running, "a").await;
    assert_eq!(done(&bench, &running).await.dead_lettered, 1);
    assert_eq!((bench.effects().await, bench.records().await), (0, 0));
    bench.assert_no_connection_is_dirty().await;
}

/// S11, S24
#[tokio::test]
async fn a_panic_rolls_effect_and_record_back() {
    let bench = Bench::new().await;
    let running = bench
        .start(async |mut tx: Tx<MySql>| {
            effect(&mut tx).await?;
            assert!(bench_is_closed(), "as the test wants it");
            Ok::<(), HandlerError>(())
        })
        .await;
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.retried, counts.dead_lettered), (2, 1));
    assert_eq!((bench.effects().await, bench.records().await), (0, 0));
    bench.assert_no_connection_is_dirty().await;
}

fn bench_is_closed() -> bool {
    false
}

/// S11, S24
#[tokio::test]
async fn a_dropped_handler_rolls_effect_and_record_back() {
    let bench = Bench::new().await;
    let entered = Arc::new(Semaphore::new(0));
    let running = {
        let entered = Arc::clone(&entered);
        bench
            .start(move |mut tx: Tx<MySql>| {
                let entered = Arc::clone(&entered);
                async move {
                    effect(&mut tx).await?;
                    entered.add_permits(1);
                    std::future::pending::<Result<(), HandlerError>>().await
                }
            })
            .await
    };
    bench.publish(&running, "a").await;
    entered.acquire().await.unwrap().forget();
    running.stop().await.unwrap();
    assert_eq!((bench.effects().await, bench.records().await), (0, 0));
    bench.assert_no_connection_is_dirty().await;
}

/// S11: what a statement that was cut short leaves behind is not the next one's.
#[tokio::test]
async fn a_handler_dropped_within_a_statement_leaves_no_connection_dirty() {
    let bench = Bench::new().await;
    let running = bench
        .start(async |mut tx: Tx<MySql>| {
            effect(&mut tx).await?;
            let slow = sqlx::query("SELECT SLEEP(1)").execute(&mut *tx);
            let cut = tokio::time::timeout(Duration::from_millis(50), slow).await;
            assert!(cut.is_err());
            Err::<(), _>(HandlerError::permanent("it took too long"))
        })
        .await;
    bench.publish(&running, "a").await;
    assert_eq!(done(&bench, &running).await.dead_lettered, 1);
    assert_eq!((bench.effects().await, bench.records().await), (0, 0));
    bench.assert_no_connection_is_dirty().await;
}

/// S25: the transaction of a duplicate is in order, and its message is acknowledged.
#[tokio::test]
async fn a_duplicate_aborts_nothing() {
    let bench = Bench::new().await;
    let running = bench.start(async |mut tx: Tx<MySql>| effect(&mut tx).await).await;
    for _ in 0..5 {
        bench.publish(&running, "a").await;
        done(&bench, &running).await;
    }
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.total(), counts.retried), (1, 4, 0));
    assert_eq!(bench.effects().await, 1);
    bench.assert_no_connection_is_dirty().await;
}

#[tokio::test]
async fn a_handler_that_commits_by_itself_is_told_and_not_repeated() {
    let bench = Bench::new().await;
    let running = bench
        .start(async |mut tx: Tx<MySql>| {
            effect(&mut tx).await?;
            sqlx::raw_sql("COMMIT").execute(&mut *tx).await.map(drop)
        })
        .await;
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    // The record went with the effect, so the second attempt is a duplicate.
    assert_eq!((counts.succeeded, counts.retried, counts.duplicates.total()), (0, 1, 1));
    assert_eq!((bench.effects().await, bench.records().await), (1, 1));
    bench.assert_no_connection_is_dirty().await;
}

/// So does `CREATE TABLE` in these databases, and others like it.
#[tokio::test]
async fn a_statement_that_commits_by_itself_is_told_and_not_repeated() {
    let bench = Bench::new().await;
    let running = bench
        .start(async |mut tx: Tx<MySql>| {
            effect(&mut tx).await?;
            let create = sqlx::raw_sql("CREATE TABLE IF NOT EXISTS by_a_handler (id INT)");
            create.execute(&mut *tx).await?;
            effect(&mut tx).await
        })
        .await;
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.retried, counts.duplicates.total()), (0, 1, 1));
    assert_eq!(bench.records().await, 1);
}

#[tokio::test]
async fn a_handler_that_rolls_back_by_itself_is_not_acknowledged() {
    let bench = Bench::new().await;
    let running = bench
        .start(async |mut tx: Tx<MySql>| {
            sqlx::raw_sql("ROLLBACK; START TRANSACTION").execute(&mut *tx).await?;
            effect(&mut tx).await
        })
        .await;
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.dead_lettered), (0, 1));
    let letter = &bench.broker.dead_letters("s.q")[0];
    let error = letter.headers.text("x-mmate-error").unwrap();
    assert!(error.contains("ended its transaction by itself"), "{error}");
    assert_eq!((bench.effects().await, bench.records().await), (0, 0));
    bench.assert_no_connection_is_dirty().await;
}

#[tokio::test]
async fn savepoints_work_within_the_transaction() {
    let bench = Bench::new().await;
    let running = bench
        .start(async |mut tx: Tx<MySql>| {
            let mut kept = tx.begin().await?;
            sqlx::query("INSERT INTO effects VALUES ('kept')").execute(&mut *kept).await?;
            kept.commit().await?;
            let mut dropped = tx.begin().await?;
            sqlx::query("INSERT INTO effects VALUES ('dropped')").execute(&mut *dropped).await?;
            drop(dropped);
            Ok::<(), HandlerError>(())
        })
        .await;
    bench.publish(&running, "a").await;
    assert_eq!(done(&bench, &running).await.succeeded, 1);
    let effects: Vec<String> =
        sqlx::query_scalar("SELECT id FROM effects").fetch_all(&bench.pool).await.unwrap();
    assert_eq!(effects, ["kept"]);
}

#[tokio::test]
async fn a_savepoint_left_open_commits_nothing() {
    let bench = Bench::new().await;
    let running = bench
        .start(async |mut tx: Tx<MySql>| {
            std::mem::forget(tx.begin().await?);
            effect(&mut tx).await?;
            Ok::<(), HandlerError>(())
        })
        .await;
    bench.publish(&running, "a").await;
    assert_eq!(done(&bench, &running).await.dead_lettered, 1);
    assert_eq!((bench.effects().await, bench.records().await), (0, 0));
    bench.assert_no_connection_is_dirty().await;
}
#[tokio::test]
async fn a_handler_without_a_transaction_of_its_own_runs_once_too() {
    let bench = Bench::new().await;
    let running = bench.start(async || Ok::<(), HandlerError>(())).await;
    for _ in 0..2 {
        bench.publish(&running, "a").await;
        done(&bench, &running).await;
    }
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 1));
    assert_eq!(bench.records().await, 1);
}
