//! A process that was paused past its lease, and goes on with what it was about to write.

use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mmate_core::{HandlerError, InProcess, Meta, Subscription};
use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::{ClaimRequest, ManualClock, Promises};
use mmate_idempotency::{LockPermit, Permit, SqliteStore, Store, StoreError};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::sync::Semaphore;

use crate::scene::{Log, by_order, counts_when, orders, publish, start};

/// The store as a paused process has it: its heartbeats are never sent.
struct Paused(SqliteStore);

#[async_trait]
impl Store for Paused {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn promises(&self) -> Promises {
        self.0.promises()
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.0.migrate().await
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        self.0.claim(request).await
    }

    async fn heartbeat(&self, _: &Permit, _: Duration) -> Result<Held, StoreError> {
        std::future::pending().await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        self.0.complete(permit, reply).await
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        self.0.release(permit).await
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        self.0.purge(at_most).await
    }
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

/// What the two wrote, and what stands in the order at the end.
async fn overtaken(statement: &'static str) -> (Vec<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let pool = shop(&folder.path().join("shop.db")).await;
    let clock = ManualClock::new();
    let store =
        SqliteStore::open(folder.path().join("locks.db")).await.unwrap().clock(clock.clone());
    let (broker, log, go_on) = (InProcess::new(), Log::default(), Arc::new(Semaphore::new(0)));
    let handler = || writing(&pool, statement, &go_on, &log);
    let one_at_a_time = || orders("q").prefetch(NonZeroU16::MIN).concurrency(1);
    let instance = async |subscription: Subscription| start(&broker, "s", subscription).await;

    let lock = by_order(Paused(store.clone())).lease(LEASE);
    let first = instance(one_at_a_time().middleware(lock).handler(handler())).await;
    publish(&first, "paused", "o-1").await;
    counts_when(&first, |_| log.lines() == ["paused"]).await;
    // The first has its hands full, so what comes now is the second's.
    let lock = by_order(store).lease(LEASE);
    let second = instance(one_at_a_time().middleware(lock).handler(handler())).await;
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
#[tokio::test(flavor = "multi_thread")]
async fn the_late_effect_of_a_paused_holder_is_refused_by_its_fence() {
    let (log, state) = overtaken(FENCED).await;
    assert_eq!(log, ["paused", "second wrote 1", "paused wrote 0"]);
    assert_eq!(state, "second");
}

/// S19: this is what a lock alone does not prevent, whoever made it.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_fence_the_late_effect_of_a_paused_holder_takes_place() {
    let (log, state) = overtaken(UNFENCED).await;
    assert_eq!(log, ["paused", "second wrote 1", "paused wrote 1"]);
    assert_eq!(state, "paused");
}
