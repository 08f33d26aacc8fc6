//! Messages each of which has one effect, and how many have.

use std::time::Duration;

use futures_util::future::BoxFuture;
use mmate_core::{Counts, HandlerError, Meta, Running};
use mmate_idempotency::Tx;
use sqlx::Postgres;

use crate::bench::Bench;
use crate::place::Place;

pub(crate) type Handled = BoxFuture<'static, Result<(), HandlerError>>;

/// A handler that has its effect, and takes about so long.
pub(crate) fn slowly(takes: Duration) -> impl Fn(Meta, Tx<Postgres>) -> Handled + Send + Sync {
    move |meta, mut tx| {
        Box::pin(async move {
            let id = meta.id.map(|id| id.to_string()).unwrap_or_default();
            sqlx::query("INSERT INTO effects VALUES ($1)").bind(id).execute(&mut *tx).await?;
            tokio::time::sleep(takes.mul_f64(fastrand::f64() * 2.0)).await;
            Ok(())
        })
    }
}

/// Waits until so many messages have found their end.
pub(crate) async fn ended(running: &Running, messages: usize) -> Counts {
    let messages = u64::try_from(messages).unwrap();
    counts_when(running, |counts| {
        counts.succeeded + counts.duplicates.total() + counts.dead_lettered >= messages
    })
    .await
}

/// Waits until the counts are as wanted.
pub(crate) async fn counts_when(running: &Running, wanted: impl Fn(&Counts) -> bool) -> Counts {
    let began = std::time::Instant::now();
    loop {
        let counts = running.stats().total();
        assert!(counts.is_conserved(), "{counts:?}");
        if wanted(&counts) {
            return counts;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "it did not come to it: {counts:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// None is lost, and none is doubled.
pub(crate) async fn assert_one_effect_each<DB: Place>(bench: &Bench<DB>, messages: usize) {
    let messages = i64::try_from(messages).unwrap();
    let distinct = bench.number("SELECT count(DISTINCT id) FROM effects").await;
    assert_eq!(distinct, messages, "none is lost");
    assert_eq!(bench.effects().await, messages, "none is doubled");
    assert_eq!(bench.records().await, messages);
}
