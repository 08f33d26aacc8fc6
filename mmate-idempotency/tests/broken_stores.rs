//! The conformance suite catches stores that are wrong in the ways that stores are.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mmate_idempotency::conformance::{
    Harness, RETENTION, agreement, batches, cancelled, claims, concurrency, identity, ownership,
    promises, race, races,
};
use mmate_idempotency::protocol::{
    Claim, Command, Done, Grant, Held, Holder, Record, State, Time, Verdict, step,
};
use mmate_idempotency::store::{ClaimRequest, ManualClock, Promises};
use mmate_idempotency::{Permit, Store, StoreError};

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
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
struct Broken {
    defect: Defect,
    clock: ManualClock,
    records: Arc<Mutex<HashMap<(String, String), Record>>>,
    is_dead: Arc<AtomicBool>,
}

impl Broken {
    fn new(defect: Defect) -> Self {
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
            tokio::task::yield_now().await;
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
        Ok(self.held(permit, Command::Heartbeat { holder: permit.holder(), lease }))
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

#[async_trait]
impl Harness for Broken {
    async fn store(&self) -> Arc<dyn Store> {
        if self.is_dead.swap(false, Ordering::SeqCst) {
            self.records.lock().unwrap().clear();
        }
        Arc::new(self.clone())
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn turn_back(&self, by: Duration) {
        self.clock.turn_back(by);
    }

    async fn now(&self) -> Time {
        self.clock.now()
    }

    async fn restart(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
    }
}

/// Whether the case fails on a store with that defect.
macro_rules! catches {
    ($defect:ident, $($case:tt)+) => {{
        let ended = tokio::spawn(async {
            $($case)+(&Broken::new(Defect::$defect)).await;
        })
        .await;
        ended.is_err_and(|error| error.is_panic())
    }};
}

/// S53: the sound one passes all that the others are to fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_sound_store_passes() {
    assert!(!catches!(None, concurrency::of_many_at_once_one_is_granted));
    assert!(!catches!(None, claims::what_was_given_back_is_granted_again_as_the_next_attempt));
    assert!(!catches!(None, claims::what_is_in_progress_is_never_a_duplicate));
    assert!(!catches!(None, claims::nobody_holds_what_was_never_claimed));
    assert!(!catches!(
        None,
        ownership::who_was_overtaken_is_refused_and_the_newer_record_is_untouched
    ));
    assert!(!catches!(None, identity::scopes_are_apart_wherever_the_separator_stands));
    assert!(!catches!(None, identity::ids_that_look_alike_are_distinct));
    assert!(!catches!(None, promises::what_is_promised_is_kept));
    assert!(!catches!(None, ownership::the_fence_rises_across_everything));
    assert!(!catches!(None, agreement::random_commands_get_the_verdicts_of_the_protocol));
    assert!(!catches!(None, batches::of_copies_in_one_batch_one_is_granted));
    assert!(!catches!(None, cancelled::a_cancelled_claim_can_be_given_back));
    assert!(!catches!(None, ownership::a_claim_is_good_for_its_own_key_only));
    assert!(!catches!(None, ownership::what_was_abandoned_is_forgotten_a_window_after_its_lease));
    assert!(!catches!(None, race::of_fifty_claimers_one_wins_each_round));
    assert!(!catches!(None, races::heartbeats_beside_claims_keep_the_claim));
    assert!(!catches!(None, races::of_a_completion_and_a_release_one_wins));
}

/// S7, S53
#[tokio::test(flavor = "multi_thread")]
async fn check_then_mark_is_caught() {
    assert!(catches!(CheckThenMark, concurrency::of_many_at_once_one_is_granted));
    assert!(catches!(CheckThenMark, batches::of_copies_in_one_batch_one_is_granted));
    assert!(catches!(CheckThenMark, race::of_fifty_claimers_one_wins_each_round));
}

/// S10, S53
#[tokio::test]
async fn marking_before_the_handler_is_caught() {
    assert!(catches!(
        MarkBeforeTheHandler,
        claims::what_was_given_back_is_granted_again_as_the_next_attempt
    ));
    assert!(catches!(MarkBeforeTheHandler, cancelled::a_cancelled_claim_can_be_given_back));
}

/// S3, S53
#[tokio::test]
async fn acknowledging_what_is_in_progress_is_caught() {
    assert!(catches!(AckWhenBusy, claims::what_is_in_progress_is_never_a_duplicate));
    assert!(catches!(AckWhenBusy, races::heartbeats_beside_claims_keep_the_claim));
}

/// S19, S53
#[tokio::test]
async fn unlocking_without_being_the_owner_is_caught() {
    assert!(catches!(
        UnlockWithoutOwner,
        ownership::who_was_overtaken_is_refused_and_the_newer_record_is_untouched
    ));
    assert!(catches!(UnlockWithoutOwner, ownership::a_claim_is_good_for_its_own_key_only));
}

/// S19, S53
#[tokio::test]
async fn completing_whoever_has_it_is_caught() {
    assert!(catches!(UnconditionalComplete, claims::nobody_holds_what_was_never_claimed));
    assert!(catches!(UnconditionalComplete, ownership::a_claim_is_good_for_its_own_key_only));
}

/// S31, S53
#[tokio::test]
async fn a_key_without_its_scope_is_caught() {
    assert!(catches!(KeyByIdAlone, identity::scopes_are_apart_wherever_the_separator_stands));
}

/// S36, S53
#[tokio::test]
async fn a_key_that_folds_case_is_caught() {
    assert!(catches!(CaseFoldingKey, identity::ids_that_look_alike_are_distinct));
}

/// S41, S53
#[tokio::test]
async fn forgetting_what_is_in_progress_is_caught() {
    assert!(catches!(EvictInProgress, promises::what_is_promised_is_kept));
}

/// S20, S53
#[tokio::test]
async fn a_fence_that_begins_anew_is_caught() {
    assert!(catches!(FenceFromOne, ownership::the_fence_rises_across_everything));
    assert!(catches!(
        FenceFromOne,
        ownership::what_was_abandoned_is_forgotten_a_window_after_its_lease
    ));
}

/// S37, S53
#[tokio::test]
async fn a_window_that_counts_from_the_claim_is_caught() {
    assert!(catches!(WindowFromClaim, agreement::random_commands_get_the_verdicts_of_the_protocol));
}

/// S53
#[tokio::test]
async fn a_promise_that_is_not_kept_is_caught() {
    assert!(catches!(PromiseTooMuch, promises::what_is_promised_is_kept));
}
