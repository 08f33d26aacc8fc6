//! A lock in Redis; who does not get it returns, so that the message is acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{HandlerError, InProcess, Meta, Subscription};
use mmate_idempotency::{Key, Locked, SqliteStore, Tracked};
use mmate_test_support::Redis;
use redis::AsyncCommands as _;

use crate::scene::{Bank, Process, order, payments, start, until};

/// Charges the card, if its process lives: the first to enter stands still.
#[derive(Clone, Default)]
struct Work {
    bank: Bank,
    entered: Arc<AtomicUsize>,
}

impl Work {
    async fn run(&self, id: &str) {
        if self.entered.fetch_add(1, Ordering::SeqCst) == 0 {
            std::future::pending::<()>().await;
        }
        self.bank.charge(id).await;
    }
}

async fn lock_and_return(redis: &Redis, work: &Work) -> Subscription {
    let (url, work) = (redis.url(), work.clone());
    payments().handler(move |meta: Meta| {
        let (url, work) = (url.clone(), work.clone());
        async move {
            let client = redis::Client::open(url)?;
            let mut redis = client.get_multiplexed_async_connection().await?;
            let id = meta.id.unwrap().to_string();
            let key = format!("lock:{id}");
            if !redis.set_nx(&key, 1).await? {
                // "Somebody else does it."
                return Ok(());
            }
            let _: () = redis.expire(&key, 60).await?;
            work.run(&id).await;
            let _: () = redis.del(&key).await?;
            Ok::<(), HandlerError>(())
        }
    })
}

/// The process that works on a message is killed, and the broker shows the message to another one.
async fn killed_at_work(work: &Work, instance: impl AsyncFn() -> Subscription) {
    let broker = InProcess::new();
    let doomed = Process::start(&broker, instance().await).await;
    doomed.publish(order()).await;
    until("the first is inside", || work.entered.load(Ordering::SeqCst) == 1).await;
    let second = start(&broker, instance().await).await;
    doomed.kill();
    broker.idle().await;
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_since_another_works_on_it_is_lost_when_that_one_dies() {
    let (redis, work) = (Redis::start().unwrap(), Work::default());
    killed_at_work(&work, async || lock_and_return(&redis, &work).await).await;
    assert!(work.bank.charges().is_empty());

    // A copy of what is in progress is deferred, and takes over when the lease is over.
    let (work, folder) = (Work::default(), tempfile::tempdir().unwrap());
    let store = async |name| SqliteStore::open(folder.path().join(name)).await.unwrap();
    let handler = |work: &Work| {
        let work = work.clone();
        move |meta: Meta| {
            let work = work.clone();
            async move {
                work.run(meta.id.unwrap().as_str()).await;
                Ok::<(), HandlerError>(())
            }
        }
    };
    let lease = Duration::from_millis(500);
    killed_at_work(&work, async || {
        let strategy = Tracked::new(store("records.db").await).lease(lease);
        payments().idempotent(strategy).handler(handler(&work))
    })
    .await;
    assert_eq!(work.bank.charges(), ["order-7"]);

    // And so does who waits for a lock.
    let work = Work::default();
    killed_at_work(&work, async || {
        let lock = Locked::by(store("locks.db").await, Key::message_id()).lease(lease);
        payments().middleware(lock).handler(handler(&work))
    })
    .await;
    assert_eq!(work.bank.charges(), ["order-7"]);
}
