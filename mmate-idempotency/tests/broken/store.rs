//! Stores that are wrong in the ways that stores are.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mmate_idempotency::conformance::RETENTION;
use mmate_idempotency::protocol::{
    Claim, Command, Done, Grant, Held, Holder, Record, State, Time, Verdict, step,
};
use mmate_idempotency::store::{ClaimRequest, ManualClock, Promises};
use mmate_idempotency::{Permit, Store, StoreError};

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    CheckThenMark,
    MarkBeforeTheHandler,
    AckWhenBusy,
    UnlockWithoutOwner,
    UnconditionalComplete,
    KeyByIdAlone,
    CaseFoldingKey,
    EvictInProgress,
    FenceFromOne,
    WindowFromClaim,
    PromiseTooMuch,
}

/// A store with one defect. But for that, it runs the protocol's own function.
#[derive(Clone)]
pub(crate) struct Broken {
    defect: Defect,
    pub(crate) clock: ManualClock,
    pub(crate) records: Arc<Mutex<HashMap<(String, String), Record>>>,
    pub(crate) is_dead: Arc<AtomicBool>,
}

impl Broken {
    pub(crate) fn new(defect: Defect) -> Self {
        Self { defect, clock: ManualClock::new(), records: Arc::default(), is_dead: Arc::default() }
    }

    fn key(&self, key: &mmate_idempotency::store::RecordKey) -> (String, String) {
        let (mut scope, mut id) = (key.scope().to_owned(), key.id().to_owned());
        match self.defect {
            Defect::KeyByIdAlone => scope = String::new(),
            Defect::CaseFoldingKey => id = id.to_lowercase(),
            _ => {}
        }
        (scope, id)
    }

    fn step(&self, key: &mmate_idempotency::store::RecordKey, command: Command) -> Verdict {
        let key = self.key(key);
        let mut records = self.records.lock().unwrap();
        let before = records.remove(&key);
        let (after, verdict) = step(before, command, self.clock.now(), &RETENTION);
        if let Some(record) = after {
            records.insert(key, record);
        }
        if self.defect == Defect::EvictInProgress && records.len() > 1_000 {
            let oldest = records.iter().min_by_key(|(_, record)| record.fence).unwrap().0.clone();
            records.remove(&oldest);
        }
        verdict
    }

    fn held(&self, permit: &Permit, command: Command) -> Held {
        match self.step(permit.key(), command) {
            Verdict::Held(held) => held,
            other => panic!("{other:?}"),
        }
    }

    /// Who has it, whoever asks.
    fn whoever(&self, permit: &Permit) -> Holder {
        let records = self.records.lock().unwrap();
        match records.get(&self.key(permit.key())) {
            Some(Record { fence, state: State::InProgress(work), .. }) => {
                Holder { owner: work.owner, fence: *fence }
            }
            Some(Record { fence, .. }) => Holder { owner: permit.holder().owner, fence: *fence },
            None => permit.holder(),
        }
    }
}

#[async_trait]
impl Store for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn promises(&self) -> Promises {
        let much = self.defect == Defect::PromiseTooMuch;
        Promises { durable: much, shared: false, complete: false }
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        let command = Command::Claim {
            owner: request.owner,
            by: request.claimant.subscription.into(),
            fingerprint: request.fingerprint,
            lease: request.lease,
            trace: request.trace,
        };
        if self.defect == Defect::CheckThenMark {
            let is_free = !self.records.lock().unwrap().contains_key(&self.key(&request.key));
            tokio::time::sleep(Duration::from_millis(1)).await;
            if is_free {
                self.records.lock().unwrap().remove(&self.key(&request.key));
            }
        }
        let Verdict::Claim(mut claim) = self.step(&request.key, command) else { panic!() };
        match (self.defect, &mut claim) {
            (Defect::AckWhenBusy, Claim::Busy { .. }) => {
                let since = self.clock.now();
                let by = "reserve-stock".into();
                let seen =
                    mmate_idempotency::protocol::Seen { since, by, reply: None, trace: None };
                claim = Claim::Duplicate(seen);
            }
            (Defect::MarkBeforeTheHandler, Claim::Granted(grant)) => {
                let holder = Holder { owner: request.owner, fence: grant.fence };
                self.step(&request.key, Command::Complete { holder, reply: None });
            }
            (Defect::FenceFromOne, Claim::Granted(Grant { fence, attempt: 1, .. })) => {
                let mut records = self.records.lock().unwrap();
                records.get_mut(&self.key(&request.key)).unwrap().fence = 1;
                *fence = 1;
            }
            _ => {}
        }
        Ok(claim)
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        let held = self.held(permit, Command::Heartbeat { holder: permit.holder(), lease });
        match self.defect {
            // Who does not look whose it is does not look whether it is there either.
            Defect::UnlockWithoutOwner => Ok(Held::Yes),
            _ => Ok(held),
        }
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        let holder = match self.defect {
            Defect::UnconditionalComplete => self.whoever(permit),
            _ => permit.holder(),
        };
        let held = self.held(permit, Command::Complete { holder, reply });
        if self.defect == Defect::WindowFromClaim {
            let mut records = self.records.lock().unwrap();
            if let Some(Record { state: State::Done(Done { since, until, .. }), fence, .. }) =
                records.get_mut(&self.key(permit.key()))
            {
                *since = Time::from_millis(*fence >> 10);
                *until = RETENTION.of_done().map(|window| *since + window);
            }
        }
        Ok(held)
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        let holder = match self.defect {
            Defect::UnlockWithoutOwner => self.whoever(permit),
            _ => permit.holder(),
        };
        Ok(self.held(permit, Command::Release { holder }))
    }

    async fn purge(&self, _at_most: u32) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let mut records = self.records.lock().unwrap();
        let before = records.len();
        records.retain(|_, record| record.until().is_none_or(|until| now < until));
        Ok((before - records.len()) as u64)
    }
}
