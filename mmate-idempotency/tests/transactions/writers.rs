//! Writers that are cut off, and writers that wait for each other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{HandlerError, MessageId, Meta, Publisher, Service, Subscription};
use mmate_idempotency::{Transactional, Tx};
use sqlx::Sqlite;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::sync::Semaphore;

use crate::bench::{Bench, done, effect, thing};
use crate::place::{Place, on_every_database};

on_every_database! {
    of_a_thousand_cuts_around_the_commit_none_loses_and_none_doubles,
}

/// S16: the service is dropped a moment after a handler's last statement, and so most often around
/// the commit. Nobody then knows whether it took effect; the record decides.
async fn of_a_thousand_cuts_around_the_commit_none_loses_and_none_doubles<DB: Place>(
    bench: Bench<DB>,
) {
    const CUTS: usize = 1000;
    let publisher = Publisher::connect(&bench.broker, "p").await.unwrap();
    let mut random = fastrand::Rng::with_seed(16);
    let (returned, runs) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut stats = Vec::new();
    let start = || {
        let (returned, runs) = (Arc::clone(&returned), Arc::clone(&runs));
        bench.start(move |meta: Meta, mut tx: Tx<DB>| {
            let (returned, runs) = (Arc::clone(&returned), Arc::clone(&runs));
            async move {
                let id = meta.id.as_ref().map_or("", MessageId::as_str);
                DB::run(&mut tx, &format!("INSERT INTO effects VALUES ('{id}')")).await?;
                runs.fetch_add(1, Ordering::SeqCst);
                returned.add_permits(1);
                for _ in 0..fastrand::usize(0..20) {
                    tokio::task::yield_now().await;
                }
                Ok::<(), HandlerError>(())
            }
        })
    };
    // The queue is made.
    start().await.stop().await.unwrap();
    for cut in 0..CUTS {
        publisher.publish(thing(&format!("{cut}"))).await.unwrap();
        let running = start().await;
        returned.acquire().await.unwrap().forget();
        for _ in 0..random.usize(0..40) {
            tokio::task::yield_now().await;
        }
        stats.push(running.stats().clone());
        drop(running);
        // Others may have been at it, too.
        while let Ok(permit) = returned.try_acquire() {
            permit.forget();
        }
        // What was not acknowledged waits for the next one, together with a new one.
    }
    let running = start().await;
    done(&bench, &running).await;
    let cuts = i64::try_from(CUTS).unwrap();
    assert_eq!(bench.number("SELECT count(DISTINCT id) FROM effects").await, cuts, "none is lost");
    assert_eq!(bench.effects().await, cuts, "none is doubled");
    // Cuts there were on both sides of the commit.
    let duplicates: u64 = stats.iter().map(|stats| stats.total().duplicates.total()).sum();
    let rolled_back = runs.load(Ordering::SeqCst) - CUTS;
    assert!(duplicates > 10, "{duplicates} were committed and not acknowledged");
    assert!(rolled_back > 10, "{rolled_back} had run and were rolled back");
    bench.assert_no_connection_is_dirty().await;
}

/// The one who waits at the gate gets in after the one before it.
#[tokio::test(flavor = "multi_thread")]
async fn writers_of_one_process_take_turns_in_order_and_never_meet_a_busy_database() {
    let bench = Bench::<Sqlite>::new().await;
    let busy = Arc::new(AtomicBool::new(false));
    let order = Arc::new(Mutex::new(Vec::new()));
    let handler = |name: &'static str| {
        let (busy, order) = (Arc::clone(&busy), Arc::clone(&order));
        move |mut tx: Tx<Sqlite>| {
            let (busy, order) = (Arc::clone(&busy), Arc::clone(&order));
            async move {
                assert!(!busy.swap(true, Ordering::SeqCst), "two at once");
                effect(&mut tx).await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
                order.lock().unwrap().push(name);
                busy.store(false, Ordering::SeqCst);
                Ok::<(), HandlerError>(())
            }
        }
    };
    // Two pools of one file, with a timeout that tolerates no waiting.
    let options = SqliteConnectOptions::new()
        .filename(bench.home.path().join("bench.db"))
        .busy_timeout(Duration::ZERO);
    let other = SqlitePoolOptions::new().connect_with(options.clone()).await.unwrap();
    let another = SqlitePoolOptions::new().connect_with(options).await.unwrap();
    let subscribe = |name, pool| {
        Subscription::per_service(name, ["thing.#"])
            .idempotent(Transactional::new(pool))
            .handler(handler(name))
    };
    let running = Service::new("s")
        .subscribe(subscribe("one", other))
        .subscribe(subscribe("two", another))
        .start(bench.broker.clone())
        .await
        .unwrap();
    for n in 0..50 {
        bench.publish(&running, &format!("{n}")).await;
    }
    let counts = done(&bench, &running).await;
    assert_eq!((counts.succeeded, counts.retried, counts.deferred), (100, 0, 0));
    let order = order.lock().unwrap();
    let first_half = &order[..50];
    assert!(first_half.iter().filter(|name| **name == "one").count() > 10, "{order:?}");
    assert!(first_half.iter().filter(|name| **name == "two").count() > 10, "{order:?}");
}
