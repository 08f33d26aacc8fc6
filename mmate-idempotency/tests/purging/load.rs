//! Claimers that are timed.

use std::time::{Duration, Instant};

use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey};
use mmate_idempotency::{Permit, Store};
use tokio::task::JoinSet;

use crate::databases::{Database, Ids, SCOPE};

const CLAIMERS: usize = 8;
const LEASE: Duration = Duration::from_secs(60);

/// How long calls took, and how many claims were granted.
#[derive(Debug, Default, Clone)]
pub(crate) struct Load {
    pub(crate) claims: Vec<Duration>,
    pub(crate) completions: Vec<Duration>,
    pub(crate) granted: u64,
}

impl Load {
    pub(crate) fn add(&mut self, other: &Self) {
        self.claims.extend(&other.claims);
        self.completions.extend(&other.completions);
        self.granted += other.granted;
    }
}

/// Below which so many of a hundred are.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Eight claimers on these stores, for so long: each claims and completes, again and again.
pub(crate) async fn load<S: Store + Clone>(
    stores: &[S],
    database: &impl Database,
    lasting: Duration,
) -> Load {
    let mut claimers = JoinSet::new();
    for number in 0..CLAIMERS {
        let (store, ids) = (stores[number % stores.len()].clone(), database.ids());
        claimers.spawn(async move { claim_until(&store, ids, Instant::now() + lasting).await });
    }
    let mut all = Load::default();
    while let Some(ended) = claimers.join_next().await {
        all.add(&ended.unwrap());
    }
    all
}

/// One id in four is that of a record that is over, and may be purged at this moment.
async fn claim_until(store: &impl Store, ids: Ids, end: Instant) -> Load {
    let mut load = Load::default();
    while Instant::now() < end {
        let is_new = fastrand::u8(0..4) > 0;
        let id = if is_new { Ids::new_one() } else { ids.over() };
        let claimant = Claimant { service: "shop", subscription: "orders", instance: "a" };
        let request = ClaimRequest::new(RecordKey::new(SCOPE, id).unwrap(), claimant, LEASE);
        let began = Instant::now();
        let claim = store.claim(&request).await.unwrap();
        load.claims.push(began.elapsed());
        match claim {
            Claim::Granted(grant) => {
                load.granted += 1;
                let permit = Permit::new(&request, grant);
                assert_eq!(permit.attempt(), 1, "what was over counts as absent");
                let began = Instant::now();
                let held = store.complete(&permit, None).await.unwrap();
                load.completions.push(began.elapsed());
                assert_eq!(held, Held::Yes);
            }
            // Another claimer has had the same one.
            Claim::Busy { .. } | Claim::Duplicate(_) if !is_new => {}
            other => panic!("a new id is granted, not {other:?}"),
        }
    }
    load
}
