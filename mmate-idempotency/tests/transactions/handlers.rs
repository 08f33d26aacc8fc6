//! What a handler does with its transaction, and what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mmate_core::transport::QueuePlan;
use mmate_core::{Envelope, HandlerError, Outcome, Reply, ReplyError, Transport};
use mmate_idempotency::Tx;
use sqlx::Connection;
use tokio::sync::Semaphore;

use crate::bench::{Bench, done, effect, thing};
use crate::place::{Place, on_every_database};

on_every_database! {
    effect_and_record_are_written_together,
    an_error_rolls_effect_and_record_back,
    a_panic_rolls_effect_and_record_back,
    a_dropped_handler_rolls_effect_and_record_back,
    a_duplicate_aborts_nothing,
    a_transaction_that_is_kept_beyond_the_handler_commits_nothing,
    a_handler_that_commits_by_itself_is_told_and_not_repeated,
    a_handler_that_rolls_back_by_itself_is_not_acknowledged,
    savepoints_work_within_the_transaction,
    a_savepoint_left_open_commits_nothing,
    a_constraint_that_fails_at_the_commit_is_a_failed_attempt,
    a_handler_may_take_its_transaction_only_once,
    a_handler_need_not_take_its_transaction,
    a_deferral_rolls_back,
    a_failure_that_is_an_answer_rolls_effect_and_record_back,
    a_reply_is_sent_when_effect_and_record_are_written,
}

/// S24
async fn effect_and_record_are_written_together<DB: Place>(bench: Bench<DB>) {
    let running = bench.start(async |mut tx: Tx<DB>| effect(&mut tx).await).await;
    bench.publish(&running, "a").await;
    assert_eq!(done(&bench, &running).await.succeeded, 1);
    assert_eq!((bench.effects().await, bench.records().await), (1, 1));
    let sql = format!(
        "SELECT count(*) FROM processed_messages WHERE scope = 's/q' AND message_id = 'a' \
         AND service_name = 's' AND status = 'done' AND {}",
        DB::IS_RECENT
    );
    assert_eq!(bench.number(&sql).await, 1);
}

/// S24
async fn an_error_rolls_effect_and_record_back<DB: Place>(bench: Bench<DB>) {
    let running = bench
        .start(async |mut tx: Tx<DB>| {
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
async fn a_panic_rolls_effect_and_record_back<DB: Place>(bench: Bench<DB>) {
    let running = bench
        .start(async |mut tx: Tx<DB>| {
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
async fn a_dropped_handler_rolls_effect_and_record_back<DB: Place>(bench: Bench<DB>) {
    let entered = Arc::new(Semaphore::new(0));
    let running = {
        let entered = Arc::clone(&entered);
        bench
            .start(move |mut tx: Tx<DB>| {
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

/// S25: the transaction of a duplicate is in order, and its message is acknowledged.
async fn a_duplicate_aborts_nothing<DB: Place>(bench: Bench<DB>) {
    let running = bench.start(async |mut tx: Tx<DB>| effect(&mut tx).await).await;
    for _ in 0..5 {
        bench.publish(&running, "a").await;
    }
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.duplicates.total(), counts.retried), (1, 4, 0));
    bench.assert_no_connection_is_dirty().await;
}

async fn a_transaction_that_is_kept_beyond_the_handler_commits_nothing<DB: Place>(
    bench: Bench<DB>,
) {
    let go_on = Arc::new(Semaphore::new(0));
    let running = {
        let go_on = Arc::clone(&go_on);
        bench
            .start(move |mut tx: Tx<DB>| {
                let go_on = Arc::clone(&go_on);
                async move {
                    effect(&mut tx).await?;
                    tokio::spawn(async move {
                        go_on.acquire().await.unwrap().forget();
                        drop(tx);
                    });
                    Ok::<(), HandlerError>(())
                }
            })
            .await
    };
    bench.publish(&running, "a").await;
    while running.stats().total().retried == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((bench.effects().await, running.stats().total().succeeded), (0, 0));
    go_on.add_permits(3);
    assert_eq!(done(&bench, &running).await.dead_lettered, 1);
    assert_eq!((bench.effects().await, bench.records().await), (0, 0));
    let letter = &bench.broker.dead_letters("s.q")[0];
    let error = letter.headers.text("x-mmate-error").unwrap();
    assert!(error.contains("its Tx was still in use"), "{error}");
    bench.assert_no_connection_is_dirty().await;
}

async fn a_handler_that_commits_by_itself_is_told_and_not_repeated<DB: Place>(bench: Bench<DB>) {
    let running = bench
        .start(async |mut tx: Tx<DB>| {
            effect(&mut tx).await?;
            DB::run(&mut tx, "COMMIT").await
        })
        .await;
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    // The record went with the effect, so the second attempt is a duplicate.
    assert_eq!((counts.succeeded, counts.retried, counts.duplicates.total()), (0, 1, 1));
    assert_eq!((bench.effects().await, bench.records().await), (1, 1));
    bench.assert_no_connection_is_dirty().await;
}

async fn a_handler_that_rolls_back_by_itself_is_not_acknowledged<DB: Place>(bench: Bench<DB>) {
    let running = bench.start(async |mut tx: Tx<DB>| DB::run(&mut tx, "ROLLBACK").await).await;
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.dead_lettered), (0, 1));
    let letter = &bench.broker.dead_letters("s.q")[0];
    let error = letter.headers.text("x-mmate-error").unwrap();
    assert!(error.contains("ended its transaction by itself"), "{error}");
    bench.assert_no_connection_is_dirty().await;
}

async fn savepoints_work_within_the_transaction<DB: Place>(bench: Bench<DB>) {
    let running = bench
        .start(async |mut tx: Tx<DB>| {
            let mut kept = tx.begin().await?;
            DB::run(&mut kept, "INSERT INTO effects VALUES ('kept')").await?;
            kept.commit().await?;
            let mut dropped = tx.begin().await?;
            DB::run(&mut dropped, "INSERT INTO effects VALUES ('dropped')").await?;
            drop(dropped);
            Ok::<(), HandlerError>(())
        })
        .await;
    bench.publish(&running, "a").await;
    assert_eq!(done(&bench, &running).await.succeeded, 1);
    assert_eq!(bench.effects().await, 1);
    assert_eq!(bench.number("SELECT count(*) FROM effects WHERE id = 'kept'").await, 1);
}

async fn a_savepoint_left_open_commits_nothing<DB: Place>(bench: Bench<DB>) {
    let running = bench
        .start(async |mut tx: Tx<DB>| {
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

async fn a_constraint_that_fails_at_the_commit_is_a_failed_attempt<DB: Place>(bench: Bench<DB>) {
    let running = bench
        .start(async |mut tx: Tx<DB>| DB::run(&mut tx, "INSERT INTO children VALUES (7)").await)
        .await;
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (0, 2, 1));
    assert_eq!(bench.records().await, 0);
    bench.assert_no_connection_is_dirty().await;
}

async fn a_handler_may_take_its_transaction_only_once<DB: Place>(bench: Bench<DB>) {
    let running =
        bench.start(async |_first: Tx<DB>, _second: Tx<DB>| Ok::<(), HandlerError>(())).await;
    bench.publish(&running, "a").await;
    assert_eq!(done(&bench, &running).await.dead_lettered, 1);
    assert_eq!(bench.records().await, 0);
}

async fn a_handler_need_not_take_its_transaction<DB: Place>(bench: Bench<DB>) {
    let running = bench.start(async || Ok::<(), HandlerError>(())).await;
    for _ in 0..2 {
        bench.publish(&running, "a").await;
    }
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 1));
    assert_eq!(bench.records().await, 1);
}

/// A handler's outcomes beside Done roll back, with their effects.
async fn a_deferral_rolls_back<DB: Place>(bench: Bench<DB>) {
    let first = Arc::new(AtomicBool::new(true));
    let running = bench
        .start(move |mut tx: Tx<DB>| {
            let first = first.swap(false, Ordering::SeqCst);
            async move {
                effect(&mut tx).await?;
                Ok::<_, HandlerError>(if first {
                    Outcome::Defer { after: Duration::from_millis(1) }
                } else {
                    Outcome::Done
                })
            }
        })
        .await;
    bench.publish(&running, "a").await;
    let counts = done(&bench, &running).await;
    assert_eq!((counts.deferred, counts.succeeded), (1, 1));
    assert_eq!(bench.effects().await, 1);
}

/// S24: a failure that is an answer has no effect and leaves no record, so a copy of the request runs
/// and is answered the same.
async fn a_failure_that_is_an_answer_rolls_effect_and_record_back<DB: Place>(bench: Bench<DB>) {
    let replies = QueuePlan::for_replies("asking.replies.1", Duration::from_secs(60));
    let asking = bench.broker.connect("asking").await.unwrap();
    asking.declare(&replies).await.unwrap();
    let running = bench
        .start(async |mut tx: Tx<DB>| {
            effect(&mut tx).await?;
            Err::<Reply<u64>, HandlerError>(ReplyError::new("sold-out", "none is left").into())
        })
        .await;
    for round in 1..=2 {
        let request = thing("a").reply_to(&replies.name);
        running.publisher().publish(request).await.unwrap();
        let counts = done(&bench, &running).await;
        assert_eq!((counts.replied, counts.retried, counts.dead_lettered), (round, 0, 0));
        assert_eq!((bench.effects().await, bench.records().await), (0, 0));
    }
    let told = bench.broker.messages(&replies.name);
    assert_eq!(told.len(), 2);
    for reply in told {
        assert_eq!(reply.headers.text("x-success"), Some("false"));
        let envelope = Envelope::from_json(reply.body).unwrap();
        let payload: serde_json::Value = envelope.payload().unwrap();
        assert_eq!(payload["errorCode"], "sold-out");
    }
    bench.assert_no_connection_is_dirty().await;
}

/// S24: an answer comes out after the effect is written.
async fn a_reply_is_sent_when_effect_and_record_are_written<DB: Place>(bench: Bench<DB>) {
    let replies = QueuePlan::for_replies("asking.replies.1", Duration::from_secs(60));
    let asking = bench.broker.connect("asking").await.unwrap();
    asking.declare(&replies).await.unwrap();
    let running = bench
        .start(async |mut tx: Tx<DB>| {
            effect(&mut tx).await?;
            Ok::<_, HandlerError>(Reply(7))
        })
        .await;
    let request = || thing("a").reply_to(&replies.name);
    running.publisher().publish(request()).await.unwrap();
    assert_eq!(done(&bench, &running).await.replied, 1);
    assert_eq!((bench.effects().await, bench.records().await), (1, 1));
    assert_eq!(bench.broker.messages(&replies.name).len(), 1);
}
