//! Several instances on one database.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{HandlerError, MessageId, Meta};
use mmate_idempotency::{Transactional, Tx};
use sqlx::MySql;
use sqlx::mysql::MySqlPoolOptions;
use tokio::sync::Semaphore;

use crate::bench::{Bench, done, effect};

async fn effect_of(meta: Meta, mut tx: Tx<MySql>) -> Result<(), HandlerError> {
    let id = meta.id.as_ref().map(MessageId::as_str);
    sqlx::query("INSERT INTO effects VALUES (?)").bind(id).execute(&mut *tx).await?;
    Ok(())
}

/// S1: every message comes to two instances at once.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_that_race_for_an_id_one_has_the_effect() {
    const IDS: usize = 300;
    let one = Bench::new().await;
    let two = one.beside().await;
    let (running, also) = (one.start(effect_of).await, two.start(effect_of).await);
    for id in 0..IDS {
        let id = format!("{id}");
        tokio::join!(one.publish(&running, &id), two.publish(&also, &id));
    }
    let (first, second) = (done(&one, &running).await, done(&two, &also).await);
    assert_eq!(first.succeeded + second.succeeded, IDS as u64);
    assert_eq!(first.duplicates.total() + second.duplicates.total(), IDS as u64);
    let effects = one.effects_by_id().await;
    assert_eq!((effects.len(), effects.iter().max()), (IDS, Some(&1)));
}

/// S3, F44: who waits for a transaction that does not end is told so before long, holds no connection
/// meanwhile, and comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_message_whose_transaction_is_open_waits_for_so_long_and_is_deferred() {
    let one = Bench::new().await;
    let two = one.beside().await;
    let (entered, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let running = {
        let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
        one.start(move |mut tx: Tx<MySql>| {
            let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
            async move {
                effect(&mut tx).await?;
                entered.add_permits(1);
                go_on.acquire().await.unwrap().forget();
                Ok::<(), HandlerError>(())
            }
        })
        .await
    };
    one.publish(&running, "a").await;
    entered.acquire().await.unwrap().forget();

    let impatient = MySqlPoolOptions::new()
        .after_connect(|connection, _| {
            Box::pin(async move {
                let set = "SET SESSION innodb_lock_wait_timeout = 1";
                sqlx::raw_sql(set).execute(connection).await.map(drop)
            })
        })
        .connect_with(two.options.clone())
        .await
        .unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let also = {
        let runs = Arc::clone(&runs);
        two.start_with(Transactional::new(impatient), move || {
            runs.fetch_add(1, Ordering::SeqCst);
            async { Ok::<(), HandlerError>(()) }
        })
        .await
    };
    two.publish(&also, "a").await;
    while also.stats().total().deferred == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    go_on.add_permits(1);
    assert_eq!(done(&one, &running).await.succeeded, 1);
    let counts = done(&two, &also).await;
    assert_eq!((counts.succeeded, counts.duplicates.total(), counts.retried), (0, 1, 0));
    assert_eq!((one.effects().await, runs.load(Ordering::SeqCst)), (1, 0));
}

/// S3: if the one who was at it fails, the copy runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_waits_runs_if_the_first_one_fails() {
    let one = Bench::new().await;
    let two = one.beside().await;
    let (entered, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let running = {
        let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
        one.start(move |mut tx: Tx<MySql>| {
            let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
            async move {
                effect(&mut tx).await?;
                entered.add_permits(1);
                go_on.acquire().await.unwrap().forget();
                Err::<(), _>(HandlerError::permanent("as the test wants it"))
            }
        })
        .await
    };
    one.publish(&running, "a").await;
    entered.acquire().await.unwrap().forget();
    let also = two.start(async |mut tx: Tx<MySql>| effect(&mut tx).await).await;
    two.publish(&also, "a").await;
    one.until_waiting(1).await;
    go_on.add_permits(1);
    assert_eq!(done(&one, &running).await.dead_lettered, 1);
    assert_eq!(done(&two, &also).await.succeeded, 1);
    assert_eq!((one.effects().await, one.records().await), (1, 1));
}

/// S30: nobody holds a connection while a handler of another strategy runs, and a pool of two serves
/// fifty messages of this one.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_pool_serves_many_handlers() {
    let bench = Bench::new().await;
    let pool = MySqlPoolOptions::new().max_connections(2).connect_with(bench.options.clone());
    let strategy = Transactional::new(pool.await.unwrap());
    let running = bench.start_with(strategy, effect_of).await;
    for id in 0..50 {
        bench.publish(&running, &format!("{id}")).await;
    }
    assert_eq!(done(&bench, &running).await.succeeded, 50);
    assert_eq!(bench.effects().await, 50);
}
