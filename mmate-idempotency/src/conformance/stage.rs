//! Claims in short, for the cases.

use std::sync::Arc;
use std::time::Duration;

use super::Harness;
use crate::protocol::{Claim, Digest, Held, Owner};
use crate::store::{ClaimRequest, Claimant, Permit, RecordKey, Store};

pub(super) const LEASE: Duration = Duration::from_secs(60);

/// A store and a scope that no other case uses.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) store: Arc<dyn Store>,
    pub(super) scope: String,
}

pub(super) fn claimant() -> Claimant<'static> {
    Claimant { service: "inventory", subscription: "reserve-stock", instance: "a" }
}

pub(super) fn content(byte: u8) -> Digest {
    Digest::from_bytes([byte; 16])
}

impl Stage {
    pub(super) async fn on(harness: &impl Harness) -> Self {
        let scope = format!("conformance/{}", uuid::Uuid::now_v7().simple());
        Self { store: harness.store().await, scope }
    }

    /// One scope through several stores of the same records.
    pub(super) async fn several_on(harness: &impl Harness, count: usize) -> Vec<Self> {
        let first = Self::on(harness).await;
        let mut stages = Vec::new();
        for _ in 1..count {
            stages.push(first.again(harness).await);
        }
        stages.push(first);
        stages
    }

    /// The same scope through another store of the same records.
    pub(super) async fn again(&self, harness: &impl Harness) -> Self {
        Self { store: harness.store().await, scope: self.scope.clone() }
    }

    pub(super) fn request(&self, id: &str) -> ClaimRequest<'static> {
        let key = RecordKey::new(self.scope.as_str(), id).expect("the id is usable");
        let mut request = ClaimRequest::new(key, claimant(), LEASE);
        request.fingerprint = Some(content(0));
        request.message_type = "OrderCreated";
        request
    }

    pub(super) async fn ask(&self, request: &ClaimRequest<'_>) -> Claim {
        self.store.claim(request).await.expect("the store answers")
    }

    pub(super) async fn claim(&self, id: &str) -> Claim {
        self.ask(&self.request(id)).await
    }

    pub(super) async fn claim_content(&self, id: &str, byte: Option<u8>) -> Claim {
        let mut request = self.request(id);
        request.fingerprint = byte.map(content);
        self.ask(&request).await
    }

    /// A claim that must be granted.
    pub(super) async fn granted(&self, id: &str) -> Permit {
        let request = self.request(id);
        match self.ask(&request).await {
            Claim::Granted(grant) => Permit::new(&request, grant),
            other => panic!("the claim of {id:?} is to be granted, not {other:?}"),
        }
    }

    pub(super) async fn done(&self, id: &str) -> Permit {
        let permit = self.granted(id).await;
        assert_eq!(self.complete(&permit).await, Held::Yes);
        permit
    }

    pub(super) async fn heartbeat(&self, permit: &Permit) -> Held {
        self.store.heartbeat(permit, LEASE).await.expect("the store answers")
    }

    pub(super) async fn complete(&self, permit: &Permit) -> Held {
        self.store.complete(permit, None).await.expect("the store answers")
    }

    pub(super) async fn release(&self, permit: &Permit) -> Held {
        self.store.release(permit).await.expect("the store answers")
    }

    /// A permit that no store has granted.
    pub(super) fn forged(&self, id: &str) -> Permit {
        let mut request = self.request(id);
        request.owner = Owner::generate();
        let grant = crate::protocol::Grant { fence: 1, attempt: 1, taken_over: false };
        Permit::new(&request, grant)
    }
}

#[track_caller]
pub(super) fn assert_busy(claim: &Claim) {
    assert!(matches!(claim, Claim::Busy { .. }), "busy, not {claim:?}");
}

#[track_caller]
pub(super) fn assert_duplicate(claim: &Claim) {
    assert!(matches!(claim, Claim::Duplicate(_)), "a duplicate, not {claim:?}");
}

#[track_caller]
pub(super) fn assert_granted(claim: &Claim) {
    assert!(matches!(claim, Claim::Granted(_)), "granted, not {claim:?}");
}
