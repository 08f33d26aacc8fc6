//! A service whose effects are counted, and claims in short.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mmate_core::{
    Counts, HandlerError, InProcess, Meta, Outgoing, RetryPolicy, Running, Service, Subscription,
};
use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey};
use mmate_idempotency::{Permit, Store, Tracked};
use mmate_test_support::unique;

pub(crate) const LEASE: Duration = Duration::from_secs(60);

pub(crate) fn request(id: &str) -> ClaimRequest<'static> {
    ClaimRequest::new(RecordKey::new("scope", id).unwrap(), Claimant::default(), LEASE)
}

/// A claim that must be granted.
pub(crate) async fn granted(store: &impl Store, id: &str) -> Permit {
    let request = request(id);
    match store.claim(&request).await.unwrap() {
        Claim::Granted(grant) => Permit::new(&request, grant),
        other => panic!("the claim of {id:?} is to be granted, not {other:?}"),
    }
}

pub(crate) async fn done(store: &impl Store, id: &str) {
    let permit = granted(store, id).await;
    assert_eq!(store.complete(&permit, None).await.unwrap(), Held::Yes);
}

/// Asks until there is an answer.
pub(crate) async fn claim_when_it_answers(store: &impl Store, request: &ClaimRequest<'_>) -> Claim {
    let began = Instant::now();
    loop {
        match store.claim(request).await {
            Ok(claim) => return claim,
            Err(error) => assert!(began.elapsed() < LIMIT, "still no answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How long a test waits for what must come.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A broker inside the process, and what the handlers of its services have done.
#[derive(Clone, Default)]
pub(crate) struct House {
    broker: InProcess,
    service: String,
    effects: Arc<Mutex<Vec<String>>>,
}

impl House {
    pub(crate) fn new() -> Self {
        Self { service: unique("house"), ..Self::default() }
    }

    /// An instance whose handler has its effect, and then does that.
    pub(crate) async fn start<F, Fut>(&self, strategy: Tracked, then: F) -> Running
    where
        F: Fn() -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let effects = Arc::clone(&self.effects);
        let handler = move |meta: Meta| {
            let (effects, then) = (Arc::clone(&effects), then.clone());
            async move {
                let id = meta.id.map(|id| id.to_string()).unwrap_or_default();
                effects.lock().unwrap().push(id);
                then().await;
                Ok::<(), HandlerError>(())
            }
        };
        let subscription = Subscription::per_service("q", [format!("thing.{}", self.service)])
            .retry(RetryPolicy::fixed(Duration::from_millis(20)))
            .concurrency(8)
            .idempotent(strategy)
            .handler(handler);
        let service = Service::new(self.service.as_str()).instance(unique("i"));
        service.subscribe(subscription).start(self.broker.clone()).await.unwrap()
    }

    pub(crate) async fn publish(&self, running: &Running, id: &str) {
        let topic = format!("thing.{}", self.service);
        let message = Outgoing::event(topic, "Thing", "payload").id_text(id);
        running.publisher().publish(message).await.unwrap();
    }

    /// How many effects each id has.
    pub(crate) fn effects(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for id in self.effects.lock().unwrap().iter() {
            *counts.entry(id.clone()).or_default() += 1;
        }
        counts
    }

    pub(crate) fn effects_of(&self, id: &str) -> usize {
        self.effects().get(id).copied().unwrap_or_default()
    }

    /// How many ids have more than one effect.
    pub(crate) fn doubles(&self) -> usize {
        self.effects().values().filter(|count| **count > 1).count()
    }
}

/// Waits until the counts are as wanted. At every look they are conserved (S47).
pub(crate) async fn counts_when(running: &Running, wanted: impl Fn(&Counts) -> bool) -> Counts {
    let began = Instant::now();
    loop {
        let counts = running.stats().total();
        assert!(counts.is_conserved(), "{counts:?}");
        if wanted(&counts) {
            return counts;
        }
        assert!(began.elapsed() < LIMIT, "it did not come to it: {counts:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many messages found their end.
pub(crate) fn ended(counts: &Counts) -> u64 {
    counts.succeeded + counts.duplicates.total() + counts.dead_lettered + counts.conflicts
}
