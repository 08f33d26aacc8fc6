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
use crate::proxy::Proxy;

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
    // A commit that is not known to have worked is no failed attempt.
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0));
    assert_eq!(counts.deferred, CUTS as u64);
    assert_eq!(counts.duplicates.total(), CUTS as u64 / 2);
    assert_eq!(runs.load(Ordering::SeqCst), CUTS + CUTS / 2);
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
