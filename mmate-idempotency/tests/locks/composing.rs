//! A lock around a strategy.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use mmate_core::{HandlerError, InProcess, Json, Meta, Running};
use mmate_idempotency::store::RecordKey;
use mmate_idempotency::{
    LockPermit, MemoryStore, Permit, Tracked, Transactional, TransactionalDatabase, Tx,
};
use mmate_test_support::{mariadb_url, postgres_url, unique};
use serde_json::Value;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, MySql, Pool, Postgres, Sqlite};
use tokio::time::sleep;

use crate::house::House;
use crate::place::{Kind, on_every_store};
use crate::scene::{Inside, Log, by_order, orders, publish, start};

on_every_store! {
    a_lock_by_order_around_a_record_by_message,
    a_handler_takes_the_permit_of_its_record_and_that_of_its_lock,
}

const MESSAGES: usize = 12;
const ORDERS: usize = 3;

/// Of each order who is inside.
type Insides = [Inside; ORDERS];

/// Enters by the order of the event, and checks that the lock and the record are what they say.
fn enter(
    inside: &Insides,
    event: &Value,
    id: &str,
    lock: &LockPermit,
    record: &RecordKey,
) -> impl Drop + Send + use<> {
    let order = event["order"]["id"].as_str().unwrap();
    assert_eq!((lock.key().scope(), lock.key().id()), ("///orders", order));
    assert_eq!((record.scope(), record.id()), ("shop/pay", id));
    inside[order.parse::<usize>().unwrap()].enter()
}

/// Publishes each message twice, and waits until all is handled. Of each order there was one handler
/// at a time, and of each message one run that counts.
async fn all_come_twice(broker: &InProcess, running: Vec<Running>, inside: &Insides) {
    broker.duplicate_next(MESSAGES);
    for n in 0..MESSAGES {
        publish(&running[0], &format!("m-{n}"), &(n % ORDERS).to_string()).await;
    }
    broker.idle().await;
    assert!(inside.iter().all(|order| order.most() == 1));
    let counts: mmate_core::Counts = running.iter().map(|one| one.stats().total()).sum();
    assert_eq!((counts.succeeded, counts.duplicates.total()), (MESSAGES as u64, MESSAGES as u64));
    for one in running {
        one.stop().await.unwrap();
    }
}

/// S1, S31: of each message one effect, of each order one handler at a time; locks and records are
/// in one store.
async fn a_lock_by_order_around_a_record_by_message(house: House) {
    let (inside, effects) = (Insides::default(), Arc::new(Mutex::new(Vec::new())));
    let mut running = Vec::new();
    for _ in 0..2 {
        let (inside, effects) = (inside.clone(), Arc::clone(&effects));
        let handler =
            move |Json(event): Json<Value>, meta: Meta, lock: LockPermit, record: RecordKey| {
                let id = meta.id.unwrap().to_string();
                let entered = enter(&inside, &event, &id, &lock, &record);
                let effects = Arc::clone(&effects);
                async move {
                    let _entered = entered;
                    sleep(Duration::from_millis(2)).await;
                    effects.lock().unwrap().push(id);
                    Ok::<(), HandlerError>(())
                }
            };
        let lock = house.lock().await.wait(Duration::from_secs(30));
        let strategy = Tracked::new(house.store().await);
        let subscription = orders("pay").middleware(lock).idempotent(strategy).handler(handler);
        running.push(start(&house.broker, "shop", subscription).await);
    }
    all_come_twice(&house.broker, running, &inside).await;
    let mut effects = effects.lock().unwrap().clone();
    effects.sort_unstable();
    effects.dedup();
    assert_eq!(effects.len(), MESSAGES);
}

/// An effect of the message with this id, under this fence.
type Insert<DB> = for<'a> fn(&'a mut Tx<DB>, String, i64) -> BoxFuture<'a, sqlx::Result<()>>;

/// S1, S31: the same with transactions on a database, which has the locks too but in SQLite.
async fn around_transactions<DB: TransactionalDatabase>(
    house: House,
    pool: Pool<DB>,
    insert: Insert<DB>,
) {
    let inside = Insides::default();
    let mut running = Vec::new();
    for _ in 0..2 {
        let inside = inside.clone();
        let handler = move |Json(event): Json<Value>,
                            meta: Meta,
                            lock: LockPermit,
                            record: RecordKey,
                            mut tx: Tx<DB>| {
            let id = meta.id.unwrap().to_string();
            let entered = enter(&inside, &event, &id, &lock, &record);
            async move {
                let _entered = entered;
                insert(&mut tx, id, lock.fence_i64()).await?;
                sleep(Duration::from_millis(2)).await;
                Ok::<(), HandlerError>(())
            }
        };
        let lock = house.lock().await.wait(Duration::from_secs(30));
        let strategy = Transactional::new(pool.clone());
        let subscription = orders("pay").middleware(lock).idempotent(strategy).handler(handler);
        running.push(start(&house.broker, "shop", subscription).await);
    }
    all_come_twice(&house.broker, running, &inside).await;
}

/// The test on one database, whose effects go into a table without a unique constraint.
macro_rules! around_transactions {
    ($case:ident, $kind:ident, $DB:ty, $pool:expr, $insert:literal) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            fn insert(tx: &mut Tx<$DB>, id: String, fence: i64) -> BoxFuture<'_, sqlx::Result<()>> {
                let query = sqlx::query($insert).bind(id).bind(fence);
                Box::pin(async move { query.execute(&mut **tx).await.map(drop) })
            }
            let folder = tempfile::tempdir().unwrap();
            let pool: Pool<$DB> = $pool(folder.path()).await;
            let sql = "CREATE TABLE payments (id VARCHAR(255), fence BIGINT)";
            sqlx::query(sql).execute(&pool).await.unwrap();
            around_transactions(House::new(Kind::$kind), pool.clone(), insert).await;
            let effects: Vec<(String, i64)> =
                sqlx::query_as("SELECT id, count(*) FROM payments GROUP BY id")
                    .fetch_all(&pool)
                    .await
                    .unwrap();
            assert_eq!(effects.len(), MESSAGES);
            assert!(effects.iter().all(|(_, times)| *times == 1), "{effects:?}");
        }
    };
}

around_transactions!(
    a_lock_by_order_around_a_transaction_by_message_on_sqlite,
    Sqlite,
    Sqlite,
    sqlite,
    "INSERT INTO payments VALUES (?, ?)"
);
around_transactions!(
    a_lock_by_order_around_a_transaction_by_message_on_postgres,
    Postgres,
    Postgres,
    postgres,
    "INSERT INTO payments VALUES ($1, $2)"
);
around_transactions!(
    a_lock_by_order_around_a_transaction_by_message_on_mysql,
    MySql,
    MySql,
    mysql,
    "INSERT INTO payments VALUES (?, ?)"
);

async fn sqlite(folder: &Path) -> Pool<Sqlite> {
    let file = folder.join("shop.db");
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
}

async fn postgres(_: &Path) -> Pool<Postgres> {
    let schema = unique("shop");
    let server = PgPoolOptions::new().max_connections(1).connect(&postgres_url()).await.unwrap();
    let sql = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
    sqlx::raw_sql(sql).execute(&server).await.unwrap();
    let url = format!("{}?options[search_path]={schema}", postgres_url());
    PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap()
}

async fn mysql(_: &Path) -> Pool<MySql> {
    let (database, url) = (unique("shop"), mariadb_url());
    let server = MySqlPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
    let sql = AssertSqlSafe(format!("CREATE DATABASE {database}"));
    sqlx::raw_sql(sql).execute(&server).await.unwrap();
    let (host, _) = url.rsplit_once('/').unwrap();
    let pool = MySqlPoolOptions::new().max_connections(4);
    pool.connect(&format!("{host}/{database}")).await.unwrap()
}

/// Locks and records in one store do not meet, although here they have the same key.
async fn a_handler_takes_the_permit_of_its_record_and_that_of_its_lock(house: House) {
    let handler = {
        let log = house.log.clone();
        move |lock: LockPermit, message: Permit, record: RecordKey| {
            assert_eq!(message.key(), &record);
            assert!(!lock.is_lost() && !message.is_lost());
            log.add(format!("{:?}, {:?}", lock.key(), message.key()));
            async { Ok::<(), HandlerError>(()) }
        }
    };
    let subscription = orders("pay")
        .middleware(house.lock().await)
        .idempotent(Tracked::new(house.store().await))
        .handler(handler);
    let running = start(&house.broker, "shop", subscription).await;
    for _ in 0..2 {
        publish(&running, "same", "same").await;
    }
    house.broker.idle().await;
    assert_eq!(house.log.lines(), [r#""same" in "///orders", "same" in "shop/pay""#]);
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
