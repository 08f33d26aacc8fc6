//! A process that was paused past its lease, and goes on with what it was about to write.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mmate_core::{HandlerError, Meta};
use mmate_idempotency::{LockPermit, Store};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::sync::Semaphore;

use crate::faulty::{Call, Fault, Faulty};
use crate::house::House;
use crate::place::on_every_store;
use crate::scene::{Log, by_order, counts_when, publish};

on_every_store! {
    the_late_effect_of_a_paused_holder_is_refused_by_its_fence,
    without_a_fence_the_late_effect_of_a_paused_holder_takes_place,
}

/// The store as a paused process has it: its heartbeats are never sent.
fn paused(store: Arc<dyn Store>) -> Faulty {
    let fault: Fault = Arc::new(|call, _| {
        Box::pin(async move {
            if call == Call::Heartbeat {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    });
    Faulty { store, fault }
}

const UNFENCED: &str = "UPDATE orders SET state = ?1, last_fence = ?2 WHERE id = 'o-1'";
const FENCED: &str =
    "UPDATE orders SET state = ?1, last_fence = ?2 WHERE id = 'o-1' AND last_fence < ?2";

/// By the process's own clock the lease does not end within a test.
const LEASE: Duration = Duration::from_secs(3600);

/// Writes its message's id into the order, by that statement; the message `paused` does so when it
/// is told to go on.
fn writing(
    pool: &SqlitePool,
    statement: &'static str,
    go_on: &Arc<Semaphore>,
    log: &Log,
) -> impl Fn(Meta, LockPermit) -> futures_util::future::BoxFuture<'static, Result<(), HandlerError>>
+ Send
+ Sync
+ 'static {
    let (pool, go_on, log) = (pool.clone(), Arc::clone(go_on), log.clone());
    move |meta, lock| {
        let (pool, go_on, log) = (pool.clone(), Arc::clone(&go_on), log.clone());
        Box::pin(async move {
            let id = meta.id.unwrap().to_string();
            if id == "paused" {
                log.add("paused");
                go_on.acquire().await.unwrap().forget();
            }
            let written = sqlx::query(statement)
                .bind(id.as_str())
                .bind(lock.fence_i64())
                .execute(&pool)
                .await?;
            log.add(format!("{id} wrote {}", written.rows_affected()));
            Ok(())
        })
    }
}

/// What the two wrote, and what stands in the order at the end. Orders are in a database of their
/// own.
async fn overtaken(mut house: House, statement: &'static str) -> (Vec<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let pool = shop(&folder.path().join("shop.db")).await;
    let (clock, log, go_on) = (house.clock(), house.log.clone(), Arc::new(Semaphore::new(0)));
    let handler = || writing(&pool, statement, &go_on, &log);

    let lock = by_order(paused(house.store().await)).lease(LEASE);
    let first = house.instance(|builder| builder.middleware(lock).handler(handler())).await;
    publish(&first, "paused", "o-1").await;
    counts_when(&first, |_| log.lines() == ["paused"]).await;
    // The first has its hands full, so what comes now is the second's.
    let lock = house.lock().await.lease(LEASE);
    let second = house.instance(|builder| builder.middleware(lock).handler(handler())).await;
    clock.advance(LEASE);
    publish(&second, "second", "o-1").await;
    counts_when(&second, |counts| counts.succeeded == 1).await;

    go_on.add_permits(1);
    counts_when(&first, |counts| counts.succeeded == 1).await;
    for one in [first, second] {
        one.stop().await.unwrap();
    }
    let state = sqlx::query_scalar("SELECT state FROM orders").fetch_one(&pool).await.unwrap();
    (log.lines(), state)
}

async fn shop(file: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
    for sql in [
        "CREATE TABLE orders (id TEXT PRIMARY KEY, state TEXT, last_fence INTEGER NOT NULL)",
        "INSERT INTO orders VALUES ('o-1', 'new', 0)",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    pool
}

/// S19, S20
async fn the_late_effect_of_a_paused_holder_is_refused_by_its_fence(house: House) {
    let (log, state) = overtaken(house, FENCED).await;
    assert_eq!(log, ["paused", "second wrote 1", "paused wrote 0"]);
    assert_eq!(state, "second");
}

/// S19: this is what a lock alone does not prevent, whoever made it.
async fn without_a_fence_the_late_effect_of_a_paused_holder_takes_place(house: House) {
    let (log, state) = overtaken(house, UNFENCED).await;
    assert_eq!(log, ["paused", "second wrote 1", "paused wrote 1"]);
    assert_eq!(state, "paused");
}
