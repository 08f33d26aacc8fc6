//! Services that work on orders, and have their locks in some store.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::{InProcess, Running, SubscriptionBuilder};
use mmate_idempotency::protocol::Claim;
use mmate_idempotency::store::{ClaimRequest, Claimant, ManualClock, RecordKey};
use mmate_idempotency::{Locked, Permit, Store};

use crate::place::{Kind, Place};
use crate::scene::{Log, by_order, orders, start};

/// What the processes of one test share.
pub(crate) struct House {
    place: Place,
    pub(crate) broker: InProcess,
    pub(crate) log: Log,
}

impl House {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { place: Place::new(kind), broker: InProcess::new(), log: Log::default() }
    }

    /// From now on stores go by this clock, which stands at the present.
    pub(crate) fn clock(&mut self) -> ManualClock {
        self.place.clock()
    }

    /// The store of a process: another handle on the same locks.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        self.place.store().await
    }

    /// The lock of a process by the order.
    pub(crate) async fn lock(&self) -> Locked {
        by_order(self.store().await)
    }

    /// Another process of one service. It takes one message at a time, so that a message which
    /// comes while one is being handled is another process's.
    pub(crate) async fn instance(
        &self,
        subscription: impl FnOnce(SubscriptionBuilder) -> mmate_core::Subscription,
    ) -> Running {
        let one_at_a_time = orders("q").prefetch(std::num::NonZeroU16::MIN).concurrency(1);
        start(&self.broker, "s", subscription(one_at_a_time)).await
    }
}

/// What a process asks for that locks `o-1`.
fn request<'a>(lease: Duration) -> ClaimRequest<'a> {
    let key = RecordKey::new("///orders", "o-1").unwrap();
    ClaimRequest::new(key, Claimant::default(), lease)
}

/// Takes the lock of `o-1`, as a process that is not heard of any more.
pub(crate) async fn seize(store: &impl Store, lease: Duration) -> Permit {
    let request = request(lease);
    match store.claim(&request).await.unwrap() {
        Claim::Granted(grant) => Permit::new(&request, grant),
        other => panic!("granted, not {other:?}"),
    }
}

/// Lets the store's time leap past the lease of who has the lock of `o-1`, and takes it.
pub(crate) async fn overtake(store: &impl Store, clock: &ManualClock, lease: Duration) -> Permit {
    let request = request(lease);
    loop {
        clock.advance(lease);
        match store.claim(&request).await.unwrap() {
            Claim::Granted(grant) => return Permit::new(&request, grant),
            // A heartbeat came in between.
            Claim::Busy { .. } => {}
            other => panic!("granted, not {other:?}"),
        }
    }
}
