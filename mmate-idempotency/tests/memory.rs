//! What the memory store forgets, and when.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use mmate_idempotency::protocol::{Claim, Digest, Held};
use mmate_idempotency::store::{ClaimRequest, Claimant, ManualClock, RecordKey};
use mmate_idempotency::{MemoryStore, Permit, Store};

const LEASE: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(3600);

async fn claim(store: &MemoryStore, id: &str) -> Result<Permit, Claim> {
    let key = RecordKey::new("scope", id).unwrap();
    let mut request = ClaimRequest::new(key, Claimant::default(), LEASE);
    request.fingerprint = Some(Digest::from_bytes([7; 16]));
    match store.claim(&request).await.unwrap() {
        Claim::Granted(grant) => Ok(Permit::new(&request, grant)),
        other => Err(other),
    }
}

async fn done(store: &MemoryStore, id: &str) {
    let permit = claim(store, id).await.unwrap();
    assert_eq!(store.complete(&permit, None).await.unwrap(), Held::Yes);
}

async fn is_known(store: &MemoryStore, id: &str) -> bool {
    match claim(store, id).await {
        Err(Claim::Duplicate(_)) => true,
        Ok(permit) => {
            store.release(&permit).await.unwrap();
            false
        }
        Err(other) => panic!("{other:?}"),
    }
}

/// S41
#[tokio::test]
async fn a_full_store_forgets_what_has_been_done_for_longest_and_counts_it() {
    let store = MemoryStore::new().capacity(100);
    for n in 0..100 {
        done(&store, &format!("{n}")).await;
    }
    assert_eq!((store.len(), store.evicted()), (100, 0));
    for n in 100..110 {
        done(&store, &format!("{n}")).await;
    }
    assert_eq!((store.len(), store.evicted()), (100, 10));
    for n in (10..110).rev() {
        assert!(is_known(&store, &format!("{n}")).await, "{n}");
    }
    assert!(!is_known(&store, "0").await);
}

/// S41: an eviction after the window is none.
#[tokio::test]
async fn what_is_over_makes_room_without_being_counted() {
    let clock = ManualClock::new();
    let store = MemoryStore::new().capacity(100).window(WINDOW).clock(clock.clone());
    for n in 0..100 {
        done(&store, &format!("{n}")).await;
    }
    clock.advance(WINDOW);
    for n in 100..200 {
        done(&store, &format!("{n}")).await;
    }
    assert_eq!(store.evicted(), 0);
    assert!(store.len() <= 100);
}

/// S41, F32: in proportion.
#[tokio::test]
async fn ten_times_more_ids_than_room_evict_no_claim_in_progress() {
    for capacity in [1_000, 70_000] {
        let store = MemoryStore::new().capacity(capacity);
        let mut held = Vec::new();
        for n in 0..capacity * 10 {
            let permit = claim(&store, &format!("{n}")).await.unwrap();
            if n % (capacity / 10) == 0 {
                held.push((n, permit));
            } else {
                store.complete(&permit, None).await.unwrap();
            }
        }
        assert!(store.len() <= capacity + capacity / 50, "{} of {capacity}", store.len());
        let done = capacity * 10 - held.len();
        let evicted = usize::try_from(store.evicted()).unwrap();
        assert_eq!(evicted, done + held.len() - store.len());
        for (n, permit) in held {
            assert!(matches!(claim(&store, &format!("{n}")).await, Err(Claim::Busy { .. })));
            assert_eq!(store.complete(&permit, None).await.unwrap(), Held::Yes);
        }
    }
}

/// S40, S41: failures do not fill the store, and go before what is done.
#[tokio::test]
async fn what_was_given_back_is_bounded_too() {
    let store = MemoryStore::new().capacity(100);
    for n in 0..50 {
        done(&store, &format!("{n}")).await;
    }
    for n in 0..10_000 {
        let permit = claim(&store, &format!("failed-{n}")).await.unwrap();
        store.release(&permit).await.unwrap();
    }
    assert_eq!((store.len(), store.evicted()), (100, 0));
    for n in 0..50 {
        assert!(is_known(&store, &format!("{n}")).await, "{n}");
    }
}

#[tokio::test]
async fn one_message_that_fails_for_ever_takes_the_room_of_one() {
    let store = MemoryStore::new();
    for _ in 0..10_000 {
        let permit = claim(&store, "a").await.unwrap();
        store.release(&permit).await.unwrap();
    }
    assert_eq!(store.len(), 1);
    assert_eq!(claim(&store, "a").await.unwrap().attempt(), 10_001);
}

/// S20: also across an eviction and a restart of the process.
#[tokio::test]
async fn the_fence_rises_although_the_store_forgets() {
    let clock = ManualClock::new();
    let store = MemoryStore::new().capacity(1).clock(clock.clone());
    let first = claim(&store, "a").await.unwrap();
    store.complete(&first, None).await.unwrap();
    clock.advance(Duration::from_millis(1));
    done(&store, "b").await;
    let second = claim(&store, "a").await.unwrap();
    assert!(second.fence() > first.fence());
    clock.advance(Duration::from_millis(1));
    let restarted = MemoryStore::new().clock(clock);
    assert!(claim(&restarted, "a").await.unwrap().fence() > second.fence());
}

#[tokio::test]
async fn replies_go_with_their_records() {
    let store = MemoryStore::new().capacity(10);
    for n in 0..1_000 {
        let permit = claim(&store, &format!("{n}")).await.unwrap();
        let reply = format!("reply {n}").into();
        store.complete(&permit, Some(reply)).await.unwrap();
    }
    for n in 990..1_000 {
        let Err(Claim::Duplicate(seen)) = claim(&store, &format!("{n}")).await else {
            panic!("{n} is a duplicate")
        };
        assert_eq!(seen.reply.unwrap(), format!("reply {n}"));
    }
}

/// Time is tokio's.
#[tokio::test(start_paused = true)]
async fn a_paused_clock_moves_leases_and_windows() {
    let store = MemoryStore::new().window(WINDOW);
    claim(&store, "a").await.unwrap();
    assert!(claim(&store, "a").await.is_err());
    tokio::time::sleep(LEASE).await;
    let second = claim(&store, "a").await.unwrap();
    assert_eq!(second.attempt(), 2);
    store.complete(&second, None).await.unwrap();
    tokio::time::sleep(WINDOW - Duration::from_millis(1)).await;
    assert!(claim(&store, "a").await.is_err());
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(claim(&store, "a").await.is_ok());
}
