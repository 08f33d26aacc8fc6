//! `EXISTS` in Redis, then the work, then `SET`.

use std::time::Duration;

use mmate_core::{HandlerError, InProcess, Meta, Subscription};
use mmate_idempotency::{SqliteStore, Tracked, Transactional, Tx};
use mmate_test_support::Redis;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use sqlx::Sqlite;

use crate::scene::{Bank, Database, one_order_twice, order, payments, start};

async fn connect(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn exists_then_set(redis: &Redis, bank: &Bank) -> Subscription {
    let (redis, bank) = (connect(redis).await, bank.clone());
    payments().handler(move |meta: Meta| {
        let (mut redis, bank) = (redis.clone(), bank.clone());
        async move {
            let key = format!("processed:{}", meta.id.unwrap());
            if redis.exists(&key).await? {
                return Ok(());
            }
            bank.charge_slowly(&key).await;
            let _: () = redis.set_ex(&key, 1, 7 * 24 * 3600).await?;
            Ok::<(), HandlerError>(())
        }
    })
}

fn forgetful() -> Redis {
    // As Debian delivers it: what was acknowledged is written to the disk minutes later.
    Redis::options().config("appendonly no\nsave 3600 1").start().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_that_ask_before_either_has_set_charge_twice() {
    let (redis, bank) = (forgetful(), Bank::default());
    one_order_twice([exists_then_set(&redis, &bank).await, exists_then_set(&redis, &bank).await])
        .await;
    assert_eq!(bank.charges().len(), 2);

    let (bank, folder) = (Bank::default(), tempfile::tempdir().unwrap());
    let mut instances = Vec::new();
    for _ in 0..2 {
        let store = SqliteStore::open(folder.path().join("records.db")).await.unwrap();
        let bank = bank.clone();
        let strategy = Tracked::new(store).lease(Duration::from_secs(30));
        instances.push(payments().idempotent(strategy).handler(move |meta: Meta| {
            let bank = bank.clone();
            async move {
                bank.charge_slowly(meta.id.unwrap().as_str()).await;
                Ok::<(), HandlerError>(())
            }
        }));
    }
    one_order_twice(instances).await;
    assert_eq!(bank.charges().len(), 1);
}

/// S46
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_has_forgotten_what_it_acknowledged() {
    let (mut redis, bank) = (forgetful(), Bank::default());
    let broker = InProcess::new();
    for _ in 0..2 {
        let running = start(&broker, exists_then_set(&redis, &bank).await).await;
        running.publisher().publish(order()).await.unwrap();
        broker.idle().await;
        running.stop().await.unwrap();
        redis.kill();
        redis.start_again().unwrap();
    }
    assert_eq!(bank.charges().len(), 2);

    // The record is where the effect is: a database that forgets the one forgets the other.
    let (database, broker) = (Database::new().await, InProcess::new());
    for _ in 0..2 {
        let strategy = Transactional::new(database.pool.clone());
        let subscription =
            payments().idempotent(strategy).handler(async |meta: Meta, mut tx: Tx<Sqlite>| {
                let id = meta.id.unwrap();
                let charge = sqlx::query("INSERT INTO charges VALUES (?)").bind(id.as_str());
                charge.execute(&mut *tx).await?;
                Ok::<(), HandlerError>(())
            });
        let running = start(&broker, subscription).await;
        running.publisher().publish(order()).await.unwrap();
        broker.idle().await;
        running.stop().await.unwrap();
    }
    assert_eq!(database.charges().await, 1);
}
