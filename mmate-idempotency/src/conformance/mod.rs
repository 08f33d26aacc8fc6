//! The suite of cases that every store must pass.
//!
//! For whoever writes a [`Store`](crate::Store) of their own: implement [`Harness`] for it, and
//! have every case as a test with [`store_conformance!`](crate::store_conformance). The same cases
//! run over every store of this crate. Where a case shows a rule of `docs/delivery-guarantees.md`,
//! it names the rule's number (S19).
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use mmate_idempotency::{MemoryStore, Store};
//! use mmate_idempotency::conformance::Harness;
//! use mmate_idempotency::protocol::{Retention, Time};
//! use mmate_idempotency::store::ManualClock;
//!
//! struct OnMemory(MemoryStore, ManualClock);
//!
//! impl OnMemory {
//!     fn new(retention: Retention) -> Self {
//!         let clock = ManualClock::new();
//!         Self(MemoryStore::new().retention(retention).clock(clock.clone()), clock)
//!     }
//! }
//!
//! #[async_trait::async_trait]
//! impl Harness for OnMemory {
//!     async fn store(&self) -> Arc<dyn Store> {
//!         Arc::new(self.0.clone())
//!     }
//!     async fn advance(&self, by: Duration) {
//!         self.1.advance(by);
//!     }
//!     async fn turn_back(&self, by: Duration) {
//!         self.1.turn_back(by);
//!     }
//!     async fn now(&self) -> Time {
//!         self.1.now()
//!     }
//! }
//!
//! // In a file of `tests/`, this makes one test of each case.
//! mmate_idempotency::store_conformance!(OnMemory::new);
//! ```
//!
//! A case fails by a panic that says what was expected.

pub mod agreement;
pub mod batches;
pub mod cancelled;
pub mod claims;
pub mod concurrency;
mod harness;
pub mod identity;
pub mod ownership;
mod plan;
pub mod promises;
pub mod race;
pub mod races;
pub mod retention;
mod sequel;
pub mod setup;
mod stage;

pub use harness::{Harness, RETENTION, within_limit};

/// Makes one test of each case of the [conformance suite](crate::conformance).
///
/// The argument is a function from a [`Retention`](crate::protocol::Retention) to the
/// [`Harness`](crate::conformance::Harness) of one test.
#[macro_export]
macro_rules! store_conformance {
    (@tests $harness:expr, $($group:ident { $($case:ident,)* })*) => {$(
        mod $group {
            use super::*;
            $(
                #[::tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let harness = ($harness)($crate::conformance::RETENTION);
                    let case = $crate::conformance::$group::$case(&harness);
                    $crate::conformance::within_limit(case).await;
                }
            )*
        }
    )*};
    ($harness:expr) => {
        $crate::store_conformance! { @tests $harness,
            claims {
                the_first_claim_is_granted_and_the_second_is_busy,
                what_is_in_progress_is_never_a_duplicate,
                what_is_done_is_a_duplicate_that_knows_since_when_and_through_whom,
                a_duplicate_knows_the_trace_in_which_it_was_done,
                a_reply_comes_back_with_the_duplicate,
                what_was_given_back_is_granted_again_as_the_next_attempt,
                another_content_is_a_conflict_before_anything_else,
                what_is_not_to_be_compared_is_no_conflict,
                the_same_attempt_recognises_its_own_claim,
                completing_and_releasing_twice_is_the_same_as_once,
                nobody_holds_what_was_never_claimed,
            }
            identity {
                ids_that_look_alike_are_distinct,
                scopes_are_apart_wherever_the_separator_stands,
                what_looks_like_a_statement_is_an_id_like_any_other,
                ids_of_every_length_are_distinct,
                contents_that_differ_in_one_byte_are_a_conflict,
                names_of_any_text_are_taken_as_they_are,
            }
            ownership {
                nobody_takes_over_before_the_lease_ends,
                an_ended_lease_is_taken_over_as_the_next_attempt,
                who_was_overtaken_is_refused_and_the_newer_record_is_untouched,
                a_lease_lasts_for_as_long_as_it_is_prolonged,
                who_is_late_but_was_not_overtaken_still_completes,
                the_fence_rises_across_everything,
                a_claim_is_good_for_its_own_key_only,
                a_claim_may_be_used_through_any_store_of_the_records,
                a_heartbeat_sets_the_lease_and_adds_nothing,
                attempts_are_counted_across_takeovers_and_releases,
                what_was_abandoned_is_forgotten_a_window_after_its_lease,
                a_clock_that_goes_back_ends_no_claim_and_forgets_nothing,
                who_was_overtaken_stays_so_when_the_clock_goes_back,
            }
            concurrency {
                of_many_at_once_one_is_granted,
                five_hundred_ids_six_times_each_have_one_effect,
                when_the_holder_gives_up_exactly_one_of_the_waiters_has_it,
                one_ended_lease_is_taken_over_once,
            }
            batches {
                of_copies_in_one_batch_one_is_granted,
                each_call_of_a_batch_gets_its_own_answer,
                batches_in_opposite_order_get_by_each_other,
                calls_of_all_kinds_at_once_get_their_own_answers,
            }
            cancelled {
                a_cancelled_claim_is_recognised_when_it_is_asked_for_again,
                a_cancelled_claim_can_be_given_back,
                a_cancelled_completion_is_so_when_it_is_asked_for_again,
                a_cancelled_release_is_so_when_it_is_asked_for_again,
                a_cancelled_heartbeat_does_no_harm,
                cancelled_calls_leave_their_neighbours_alone,
            }
            races {
                one_attempt_asking_many_times_at_once_is_granted_once,
                of_a_late_completion_and_a_takeover_one_wins,
                of_a_late_heartbeat_and_a_takeover_one_wins,
                of_a_completion_and_a_release_one_wins,
                heartbeats_beside_claims_keep_the_claim,
            }
            race {
                of_fifty_claimers_one_wins_each_round,
            }
            setup {
                making_it_again_changes_nothing,
            }
            retention {
                the_window_counts_from_done,
                a_purge_forgets_what_is_over_and_nothing_else,
                a_purge_is_bounded,
                abandoned_and_given_back_records_are_reclaimed,
                purges_beside_claims_disturb_neither,
            }
            promises {
                what_is_promised_is_kept,
            }
            agreement {
                random_commands_get_the_verdicts_of_the_protocol,
            }
        }
    };
}
