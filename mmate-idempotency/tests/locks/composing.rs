//! A lock around a strategy.

use std::time::Duration;

use mmate_core::{HandlerError, InProcess, Json, Meta};
use mmate_idempotency::store::RecordKey;
use mmate_idempotency::{LockPermit, MemoryStore, Permit, SqliteStore, Tracked, Transactional, Tx};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Sqlite, SqlitePool};
use tokio::time::sleep;

use crate::scene::{Inside, Log, by_order, orders, publish, start};

async fn pool(file: &std::path::Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
}

const MESSAGES: usize = 12;
const ORDERS: usize = 3;

/// S1, S31: a lock by the order around a transaction by the message's id: of each message one
/// effect, of each order one handler at a time.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_by_order_around_a_transaction_by_message() {
    let folder = tempfile::tempdir().unwrap();
    let pool = pool(&folder.path().join("shop.db")).await;
    sqlx::query("CREATE TABLE payments (id TEXT, fence INTEGER)").execute(&pool).await.unwrap();
    let locks = SqliteStore::open(folder.path().join("locks.db")).await.unwrap();
    let broker = InProcess::new();
    let inside: [Inside; ORDERS] = Default::default();
    let mut running = Vec::new();
    for _ in 0..2 {
        let inside = inside.clone();
        let handler = move |Json(event): Json<Value>,
                            meta: Meta,
                            lock: LockPermit,
                            record: RecordKey,
                            mut tx: Tx<Sqlite>| {
            let order = event["order"]["id"].as_str().unwrap().to_owned();
            let entered = inside[order.parse::<usize>().unwrap()].enter();
            async move {
                let _entered = entered;
                let id = meta.id.unwrap();
                // Each of the two is what it says.
                assert_eq!((lock.key().scope(), lock.key().id()), ("///orders", order.as_str()));
                assert_eq!((record.scope(), record.id()), ("shop/pay", id.as_str()));
                sqlx::query("INSERT INTO payments VALUES (?, ?)")
                    .bind(id.as_str())
                    .bind(lock.fence_i64())
                    .execute(&mut *tx)
                    .await?;
                sleep(Duration::from_millis(2)).await;
                Ok::<(), HandlerError>(())
            }
        };
        let lock = by_order(locks.clone()).wait(Duration::from_secs(30));
        let strategy = Transactional::new(pool.clone());
        let subscription = orders("pay").middleware(lock).idempotent(strategy).handler(handler);
        running.push(start(&broker, "shop", subscription).await);
    }
    broker.duplicate_next(MESSAGES);
    for n in 0..MESSAGES {
        publish(&running[0], &format!("m-{n}"), &(n % ORDERS).to_string()).await;
    }
    broker.idle().await;
    let effects: Vec<(String, i64)> =
        sqlx::query_as("SELECT id, count(*) FROM payments GROUP BY id")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(effects.len(), MESSAGES);
    assert!(effects.iter().all(|(_, times)| *times == 1), "{effects:?}");
    assert!(inside.iter().all(|order| order.most() == 1));
    let counts: mmate_core::Counts = running.iter().map(|one| one.stats().total()).sum();
    assert_eq!((counts.succeeded, counts.duplicates.total()), (MESSAGES as u64, MESSAGES as u64));
    for one in running {
        one.stop().await.unwrap();
    }
}

/// Locks and records in one store do not meet, although here they have the same key.
#[tokio::test(start_paused = true)]
async fn a_handler_takes_the_permit_of_its_record_and_that_of_its_lock() {
    let (broker, store, log) = (InProcess::new(), MemoryStore::new(), Log::default());
    let handler = {
        let log = log.clone();
        move |lock: LockPermit, message: Permit, record: RecordKey| {
            assert_eq!(message.key(), &record);
            assert!(!lock.is_lost() && !message.is_lost());
            log.add(format!("{:?}, {:?}", lock.key(), message.key()));
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let subscription = orders("pay")
        .middleware(by_order(store.clone()))
        .idempotent(Tracked::new(store))
        .handler(handler);
    let running = start(&broker, "shop", subscription).await;
    for _ in 0..2 {
        publish(&running, "same", "same").await;
    }
    broker.idle().await;
    assert_eq!(log.lines(), [r#""same" in "///orders", "same" in "shop/pay""#]);
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.total()), (1, 1));
}

/// Of two locks the handler sees the inner one.
#[tokio::test(start_paused = true)]
async fn two_locks_may_be_held_one_within_the_other() {
    let (broker, store, log) = (InProcess::new(), MemoryStore::new(), Log::default());
    let handler = {
        let log = log.clone();
        move |lock: LockPermit| {
            log.add(lock.key().scope());
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let subscription = orders("pay")
        .middleware(by_order(store.clone()))
        .middleware(by_order(store).scope("customers"))
        .handler(handler);
    let running = start(&broker, "shop", subscription).await;
    publish(&running, "a", "o-1").await;
    publish(&running, "b", "o-1").await;
    broker.idle().await;
    assert_eq!(log.lines(), ["///customers", "///customers"]);
    assert_eq!(running.stats().total().succeeded, 2);
}
