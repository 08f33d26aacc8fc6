//! How fast the upkeep purges.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mmate_idempotency::protocol::Claim;
use mmate_idempotency::store::{ClaimRequest, Claimant, ManualClock, RecordKey};
use mmate_idempotency::{Idempotent, MemoryStore, Permit, Store};

use crate::watched::Watched;

/// So many records whose window is over.
async fn store_of(records: usize) -> MemoryStore {
    let clock = ManualClock::new();
    let store = MemoryStore::new().window(Duration::from_secs(3600)).clock(clock.clone());
    for number in 0..records {
        let key = RecordKey::new("scope", format!("{number}")).unwrap();
        let request = ClaimRequest::new(key, Claimant::default(), Duration::from_secs(60));
        let Claim::Granted(grant) = store.claim(&request).await.unwrap() else { panic!() };
        store.complete(&Permit::new(&request, grant), None).await.unwrap();
    }
    clock.advance(Duration::from_secs(3600));
    store
}

/// How many purges the upkeep begins in this time, each of which takes so long.
async fn purges_in(lasting: Duration, each: Duration) -> u64 {
    let mut store = Watched::new(Arc::new(store_of(20_000).await));
    store.delay = each;
    let upkeep = Idempotent::new(store.clone()).purge_every(Duration::from_millis(1));
    upkeep.prepare().await.unwrap();
    tokio::time::sleep(lasting).await;
    assert!(store.removed.load(Ordering::Relaxed) > 0);
    store.purges.load(Ordering::Relaxed)
}

/// S39: at a database that is slow, most of the time is left to others.
#[tokio::test(start_paused = true)]
async fn purges_rest_for_twice_as_long_as_they_take() {
    let purges = purges_in(Duration::from_secs(30), Duration::from_secs(1)).await;
    assert!((9..=11).contains(&purges), "{purges} in 30 s");
    let purges = purges_in(Duration::from_millis(220), Duration::from_millis(1)).await;
    assert!((19..=21).contains(&purges), "{purges} in 220 ms");
}
