//! The conformance suite catches stores that are wrong in the ways that stores are.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use mmate_idempotency::Store;
use mmate_idempotency::conformance::{
    Harness, agreement, batches, cancelled, claims, concurrency, identity, ownership, promises,
    race, races,
};
use mmate_idempotency::protocol::Time;

use crate::store::{Broken, Defect};

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
