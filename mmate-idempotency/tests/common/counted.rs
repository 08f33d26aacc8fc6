//! A store whose calls are counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mmate_idempotency::protocol::{Claim, Held, Retention};
use mmate_idempotency::store::{ClaimRequest, Promises};
use mmate_idempotency::{Permit, Store, StoreError};

/// Says of itself what it is told to, and else what its store says. Clones count together.
#[derive(Clone)]
pub(crate) struct Counted<S> {
    pub(crate) store: S,
    pub(crate) promises: Promises,
    pub(crate) remembers: Option<Retention>,
    calls: Arc<Mutex<HashMap<&'static str, usize>>>,
}

impl<S: Store> Counted<S> {
    pub(crate) fn new(store: S) -> Self {
        let (promises, remembers) = (store.promises(), store.remembers());
        Self { store, promises, remembers, calls: Arc::default() }
    }

    /// How many calls of these names there were.
    pub(crate) fn calls<const N: usize>(&self, names: [&str; N]) -> usize {
        let calls = self.calls.lock().unwrap();
        names.iter().filter_map(|name| calls.get(name)).sum()
    }

    fn count(&self, name: &'static str) -> &S {
        *self.calls.lock().unwrap().entry(name).or_default() += 1;
        &self.store
    }
}

#[async_trait]
impl<S: Store> Store for Counted<S> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn promises(&self) -> Promises {
        self.promises
    }

    fn remembers(&self) -> Option<Retention> {
        self.remembers
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        self.count("claim").claim(request).await
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        self.count("heartbeat").heartbeat(permit, lease).await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        self.count("complete").complete(permit, reply).await
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        self.count("release").release(permit).await
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        self.store.purge(at_most).await
    }
}
