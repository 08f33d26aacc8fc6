//! Services that are cut off at any moment.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{HandlerError, MessageId, Meta, Publisher};
use mmate_idempotency::{Outbox, Tx};
use sqlx::{Row, Sqlite};
use tokio::sync::Semaphore;

use crate::bench::{Bench, note};
use crate::handlers::{start, thing};

async fn effect(tx: &mut Tx<Sqlite>, id: &str) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO effects VALUES (?)").bind(id).execute(&mut **tx).await.map(drop)
}

async fn breathe() {
    for _ in 0..fastrand::usize(0..6) {
        tokio::task::yield_now().await;
    }
}

/// S24, S28: a service is dropped after each statement of its handler, and around the commit. Of
/// each message there are both effects and both messages in the end, each message under one id, or
/// neither.
#[tokio::test(flavor = "multi_thread")]
async fn at_a_cut_between_any_two_statements_there_is_all_of_it_or_nothing() {
    const CUTS: usize = 300;
    const STEPS: usize = 5;
    let bench = Bench::<Sqlite>::new().await;
    sqlx::query("CREATE TABLE effects (id TEXT)").execute(&bench.place.pool).await.unwrap();
    let publisher = Publisher::connect(&bench.broker, "p").await.unwrap();
    let mut random = fastrand::Rng::with_seed(24);
    let (steps, reached) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let run = || {
        let (steps, reached) = (Arc::clone(&steps), Arc::clone(&reached));
        start(&bench, move |meta: Meta, mut tx: Tx<Sqlite>, outbox: Outbox<Sqlite>| {
            let (steps, reached) = (Arc::clone(&steps), Arc::clone(&reached));
            async move {
                let id = meta.id.as_ref().map_or("", MessageId::as_str).to_owned();
                let step = async || {
                    reached.fetch_add(1, Ordering::SeqCst);
                    steps.add_permits(1);
                    breathe().await;
                };
                step().await;
                effect(&mut tx, &id).await?;
                step().await;
                outbox.publish(&mut tx, note(&format!("{id} first"))).await?;
                step().await;
                effect(&mut tx, &id).await?;
                step().await;
                outbox.publish(&mut tx, note(&format!("{id} second"))).await?;
                step().await;
                Ok::<(), HandlerError>(())
            }
        })
    };
    run().await.stop().await.unwrap();
    let mut cut_at = [0; STEPS];
    for cut in 0..CUTS {
        publisher.publish(thing(&format!("{cut}"))).await.unwrap();
        let running = run().await;
        let step = random.usize(0..STEPS);
        cut_at[step] += 1;
        let passed = u32::try_from(step + 1).unwrap();
        steps.acquire_many(passed).await.unwrap().forget();
        for _ in 0..random.usize(0..30) {
            tokio::task::yield_now().await;
        }
        drop(running);
        check(&bench).await;
        while let Ok(permit) = steps.try_acquire() {
            permit.forget();
        }
    }
    assert!(cut_at.iter().all(|cuts| *cuts > 20), "{cut_at:?}");
    let running = run().await;
    tokio::time::timeout(Duration::from_secs(120), bench.broker.idle()).await.unwrap();
    bench.emptied().await;
    running.stop().await.unwrap();
    check(&bench).await;
    let mut ids: HashMap<String, BTreeSet<String>> = HashMap::new();
    for arrived in bench.arrived() {
        ids.entry(arrived.payload).or_default().insert(arrived.id);
    }
    assert_eq!(ids.len(), 2 * CUTS, "two messages of each");
    assert!(ids.values().all(|ids| ids.len() == 1), "one id for each: {ids:?}");
    let effects: i64 = sqlx::query_scalar("SELECT count(*) FROM effects")
        .fetch_one(&bench.place.pool)
        .await
        .unwrap();
    assert_eq!(effects, 2 * i64::try_from(CUTS).unwrap());
}

/// There are both effects of a message and its record, or none; and of no other is a message known.
async fn check(bench: &Bench<Sqlite>) {
    // What was given to the database before the cut may be on its way.
    let sql = "SELECT message_id, (SELECT count(*) FROM effects WHERE id = message_id) AS effects
        FROM processed_messages";
    let rows = sqlx::query(sql).fetch_all(&bench.place.pool).await.unwrap();
    for row in rows {
        assert_eq!(row.get::<i64, _>("effects"), 2, "{:?}", row.get::<String, _>("message_id"));
    }
    let of_no_record = "SELECT count(*) FROM effects
        WHERE id NOT IN (SELECT message_id FROM processed_messages)";
    let strays: i64 = sqlx::query_scalar(of_no_record).fetch_one(&bench.place.pool).await.unwrap();
    assert_eq!(strays, 0);
    let known: Vec<String> = sqlx::query_scalar("SELECT message_id FROM processed_messages")
        .fetch_all(&bench.place.pool)
        .await
        .unwrap();
    for arrived in bench.arrived() {
        let of = arrived.payload.split(' ').next().unwrap();
        assert!(known.iter().any(|id| id == of), "{arrived:?}");
    }
}
