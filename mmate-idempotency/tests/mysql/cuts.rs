//! Commits whose answer is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_core::{HandlerError, MessageId, Meta};
use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::StoreErrorKind;
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey};
use mmate_idempotency::{MySqlStore, Permit, Store, StoreError, Transactional, Tx};
use sqlx::MySql;

use crate::bench::{Bench, done, pool_of};
use crate::proxy::{LATE, Proxy};

/// S16, F42: half of the commits take effect and half do not, and nobody is told. The record decides.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_commits_that_are_cut_none_loses_and_none_doubles() {
    const CUTS: usize = 1000;
    let bench = Bench::new().await;
    let proxy = Proxy::in_front_of(&bench.options).await;
    let pool = pool_of(&proxy.options(&bench.options), 8).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let running = {
        let runs = Arc::clone(&runs);
        let handler = move |meta: Meta, mut tx: Tx<MySql>| {
            runs.fetch_add(1, Ordering::SeqCst);
            async move {
                let id = meta.id.as_ref().map(MessageId::as_str);
                let insert = sqlx::query("INSERT INTO effects VALUES (?)").bind(id);
                insert.execute(&mut *tx).await?;
                Ok::<(), HandlerError>(())
            }
        };
        bench.start_with(Transactional::new(pool), handler).await
    };
    proxy.cut_further(CUTS);
    for id in 0..CUTS {
        bench.publish(&running, &format!("{id}")).await;
    }
    let counts = done(&bench, &running).await;
    assert_eq!(proxy.left(), 0);
    let effects = bench.effects_by_id().await;
    assert_eq!(effects.len(), CUTS, "none is lost");
    assert!(effects.iter().all(|count| *count == 1), "none is doubled");
    // A commit that is not known to have worked is no failed attempt: the transaction is repeated, and
    // its handler only where there is no record.
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0));
    assert_eq!(runs.load(Ordering::SeqCst), CUTS + CUTS / 2);
}

/// S11: nobody waits any more for a transaction that begins late, so nobody ends it either: its
/// connection is not given to others.
#[tokio::test]
async fn a_transaction_that_begins_too_late_is_nobody_elses() {
    let bench = Bench::new().await;
    let proxy = Proxy::in_front_of(&bench.options).await;
    let pool = pool_of(&proxy.options(&bench.options), 1).await;
    let strategy = Transactional::new(pool.clone())
        .answer_timeout(LATE / 5)
        .outage_patience(Duration::from_millis(1));
    let running = bench.start_with(strategy, async || Ok::<(), HandlerError>(())).await;
    proxy.begin_late(1);
    bench.publish(&running, "a").await;
    while running.stats().total().deferred == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sqlx::query("INSERT INTO effects VALUES ('of another')").execute(&pool).await.unwrap();
    assert_eq!(bench.effects().await, 1);
    assert_eq!(done(&bench, &running).await.succeeded, 1);
}

/// S45: the same attempt, asked again, recognises its own claim; so do the other calls.
#[tokio::test]
async fn a_call_whose_answer_was_lost_is_asked_again() {
    let bench = Bench::new().await;
    let proxy = Proxy::in_front_of(&bench.options).await;
    let store = MySqlStore::new(pool_of(&proxy.options(&bench.options), 2).await);
    store.migrate().await.unwrap();
    let lease = Duration::from_secs(60);
    for id in 0..4 {
        let key = RecordKey::new("scope", format!("{id}")).unwrap();
        let request = ClaimRequest::new(key.clone(), Claimant::default(), lease);
        proxy.cut_further(1);
        assert_unknown(&store.claim(&request).await.unwrap_err());
        let Claim::Granted(grant) = store.claim(&request).await.unwrap() else { panic!() };
        assert_eq!(grant.attempt, 1);
        let permit = Permit::new(&request, grant);
        proxy.cut_further(1);
        assert_unknown(&store.heartbeat(&permit, lease).await.unwrap_err());
        assert_eq!(store.heartbeat(&permit, lease).await.unwrap(), Held::Yes);
        proxy.cut_further(1);
        assert_unknown(&store.complete(&permit, None).await.unwrap_err());
        assert_eq!(store.complete(&permit, None).await.unwrap(), Held::Yes);
        let copy = ClaimRequest::new(key, Claimant::default(), lease);
        assert!(matches!(store.claim(&copy).await.unwrap(), Claim::Duplicate(_)));
    }
}

#[track_caller]
fn assert_unknown(error: &StoreError) {
    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
}

/// S11, S16, S45: whatever is cut short by the time an answer may take, be it the beginning of a
/// transaction, a claim or a commit: none loses, none doubles, and no connection comes back dirty.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_for_lack_of_time_leaves_nothing_behind() {
    const MESSAGES: usize = 200;
    let bench = Bench::new().await;
    let handler = async |meta: Meta, mut tx: Tx<MySql>| {
        let id = meta.id.as_ref().map(MessageId::as_str);
        let insert = sqlx::query("INSERT INTO effects VALUES (?)").bind(id);
        insert.execute(&mut *tx).await?;
        Ok::<(), HandlerError>(())
    };
    // Some answers come in time and some do not.
    for micros in [300, 700, 1500, 3000] {
        let hasty = bench
            .strategy()
            .answer_timeout(Duration::from_micros(micros))
            .outage_patience(Duration::from_millis(20));
        let running = bench.start_with(hasty, handler).await;
        for id in 0..MESSAGES {
            bench.publish(&running, &format!("{micros}-{id}")).await;
        }
        let settled = || {
            let counts = running.stats().total();
            counts.succeeded + counts.duplicates.total() + counts.deferred
        };
        while settled() < MESSAGES as u64 / 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.stop().await.unwrap();
        bench.assert_no_connection_is_dirty().await;
    }
    let running = bench.start(handler).await;
    done(&bench, &running).await;
    let effects = bench.effects_by_id().await;
    assert_eq!(effects.len(), 4 * MESSAGES, "none is lost");
    assert!(effects.iter().all(|count| *count == 1), "none is doubled");
}
