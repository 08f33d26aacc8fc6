//! The suite of cases that every transport must pass.
//!
//! For whoever writes a [`Transport`](crate::Transport) of their own: implement [`Harness`] for it,
//! and have every case as a test with [`transport_conformance!`](crate::transport_conformance). The
//! same cases run over [`InProcess`](crate::InProcess) and over RabbitMQ. Where a case shows a rule
//! of `docs/delivery-guarantees.md`, it names the rule's number (S3).
//!
//! ```
//! use mmate_core::InProcess;
//! use mmate_core::conformance::Harness;
//!
//! #[derive(Default)]
//! struct OnInProcess(InProcess);
//!
//! #[async_trait::async_trait]
//! impl Harness for OnInProcess {
//!     type Transport = InProcess;
//!
//!     fn transport(&self) -> InProcess {
//!         self.0.clone()
//!     }
//!
//!     async fn cut(&self) {
//!         self.0.cut();
//!     }
//!
//!     async fn ready(&self, queue: &str) -> usize {
//!         self.0.queue(queue).map_or(0, |queue| queue.ready)
//!     }
//! }
//!
//! // In a file of `tests/`, this makes one test of each case.
//! mmate_core::transport_conformance!(OnInProcess::default());
//! ```
//!
//! A case fails by a panic that says what was expected. None waits longer than it must, and none
//! longer than its limit: a transport that hangs fails like one that is wrong.

pub mod batches;
pub mod browsing;
pub mod chains;
pub mod content;
pub mod dead_letters;
pub mod declaring;
pub mod delay;
mod disorder;
mod harness;
pub mod later;
pub mod letters;
pub mod ordering;
pub mod outage;
pub mod partitions;
pub mod publishing;
pub mod replies;
pub mod requests;
pub mod routing;
pub mod service;
pub mod service_outcomes;
pub mod settling;
pub mod sharing;
mod stage;

pub use disorder::{Disorder, disorder};
pub use harness::{Harness, within_limit};

/// Makes one test of each case of the [conformance suite](crate::conformance).
///
/// The first argument is an expression for the [`Harness`](crate::conformance::Harness), evaluated
/// in each test, where it may `.await`. What follows it goes to `#[tokio::test]`, such as
/// `flavor = "multi_thread"`. The tests stand in modules named after the suite's.
#[macro_export]
macro_rules! transport_conformance {
    (@tests $harness:expr, $runtime:tt, $($group:ident { $($case:ident,)* })*) => {$(
        mod $group {
            use super::*;
            $(
                #[::tokio::test $runtime]
                async fn $case() {
                    let harness = $harness;
                    let case = $crate::conformance::$group::$case(&harness);
                    $crate::conformance::within_limit(case).await;
                }
            )*
        }
    )*};
    ($harness:expr $(, $($runtime:tt)+)?) => {
        $crate::transport_conformance! { @tests $harness, ($($($runtime)+)?),
            routing {
                a_message_reaches_every_queue_whose_pattern_matches_and_no_other,
                many_patterns_in_one_queue_give_one_copy,
                a_star_is_one_word_and_a_hash_is_any_number,
                a_pattern_with_a_glob_gets_all_that_it_matches,
                the_same_topic_on_another_exchange_is_another_topic,
                an_exchange_that_nobody_made_is_made,
                a_message_sent_to_a_queue_by_name_reaches_that_queue_alone,
                an_unroutable_message_is_an_error,
                an_unroutable_message_may_vanish_when_that_is_allowed,
                a_topic_of_255_bytes_is_routed_whole,
            }
            sharing {
                competing_consumers_split_the_messages,
                a_consumer_that_is_full_holds_nobody_up,
                each_queue_has_its_own_copy,
                each_instance_has_its_own_copy,
                a_queue_per_instance_ends_with_its_connection,
                a_queue_per_instance_is_locked_for_other_connections,
                one_consumer_gets_the_messages_in_order,
                many_tasks_publish_and_each_message_arrives_once,
                ten_thousand_messages_go_through,
            }
            settling {
                an_acknowledged_message_is_gone,
                what_is_acknowledged_just_before_the_connection_closes_is_gone,
                an_unsettled_message_is_shown_again_when_its_connection_closes,
                a_requeued_message_is_shown_again_at_once_and_counts_as_nothing,
                an_acknowledgement_covers_its_own_delivery_only,
                the_prefetch_bounds_what_is_unsettled,
                a_stopped_consumer_gives_back_what_it_has_not_returned,
                a_consumer_may_be_stopped_twice_and_then_ends,
                a_wait_that_is_given_up_loses_nothing,
            }
            delay {
                a_retried_message_comes_back_after_its_delay_and_not_before,
                a_retried_message_is_the_same_message,
                attempts_add_up_and_the_first_failure_is_remembered,
                a_deferral_counts_no_attempt,
                a_retry_without_a_delay_comes_back,
                a_short_delay_does_not_wait_for_a_long_one,
                a_delayed_message_makes_room_for_the_next,
                a_delayed_message_comes_back_to_its_own_queue_only,
                a_delayed_message_outlives_its_connection,
                a_queue_per_instance_delays_too,
                a_message_that_waits_too_long_is_not_shown_but_dead_lettered,
                a_message_that_was_shown_in_time_does_not_expire_while_it_is_delayed,
            }
            later {
                a_delayed_event_reaches_every_queue_once_and_not_before,
                a_delayed_event_reaches_a_queue_that_is_bound_meanwhile,
                a_delayed_message_reaches_a_queue_by_its_name,
                what_is_published_for_later_outlives_its_connection,
                delayed_events_that_nobody_takes_hold_up_no_others,
                a_message_that_cannot_be_delayed_is_refused_at_once,
                a_queue_with_priorities_shows_the_most_urgent_first,
            }
            dead_letters {
                a_dead_letter_says_why_and_where_it_comes_from,
                a_dead_letter_is_the_same_message_and_leaves_its_queue,
                a_dead_letter_knows_the_first_failure_and_its_topic_after_retries,
                a_dead_letter_of_a_queue_that_is_used_as_it_is_is_kept,
                a_dead_letter_of_a_queue_per_instance_is_kept,
            }
            browsing {
                what_is_looked_at_goes_back_in_its_order,
                a_browser_sees_what_was_there_and_ends,
                an_empty_queue_has_nothing_to_look_at,
                what_is_taken_leaves_and_the_rest_keeps_its_order,
                a_moved_message_goes_to_the_named_queue_with_its_changes,
                a_message_that_cannot_be_moved_stays,
                a_cut_ends_the_browser_and_takes_nothing,
                a_dropped_browser_gives_back,
                a_missing_queue_is_not_found_when_it_is_browsed,
            }
            letters {
                letters_are_listed_and_stay,
                a_replayed_letter_runs_again_as_the_same_message,
                a_letter_that_fails_again_is_not_replayed_for_ever,
                a_letter_is_replayed_as_new_under_an_id_of_its_own,
                chosen_letters_are_discarded_and_the_others_stay,
                letters_that_cannot_be_read_are_letters_too,
                what_cannot_be_replayed_or_opened_is_told,
            }
            chains {
                a_chain_that_loops_is_dead_lettered_at_the_hop_limit,
                a_new_chain_counts_from_zero_and_a_deferral_counts_nothing,
            }
            content {
                every_property_survives,
                a_message_without_properties_has_none,
                every_type_of_header_survives,
                an_empty_body_and_odd_bytes_survive,
                a_body_of_a_mebibyte_survives,
                names_and_texts_of_any_script_survive,
            }
            declaring {
                declaring_twice_is_fine_and_bindings_add_up,
                another_kind_is_a_mismatch,
                a_queue_that_must_be_there_and_is_not_is_not_found,
                a_queue_is_used_as_it_is_when_asked,
                a_refused_declaration_leaves_the_connection_usable,
                messages_wait_for_their_consumer,
                a_queue_that_expires_stays_while_it_is_consumed_and_ends_afterwards,
                a_queue_for_replies_has_no_dead_letter_queue_and_keeps_what_comes_during_a_cut,
                verifying_makes_nothing_and_tells_what_is_missing,
                what_is_left_alone_is_neither_made_nor_asked_for,
            }
            outage {
                after_a_cut_publishing_and_consuming_go_on,
                what_was_unsettled_at_a_cut_is_shown_again_and_its_old_settlement_is_lost,
                a_delivery_knows_when_its_connection_is_gone,
                a_queue_per_instance_is_back_after_a_cut,
                cuts_in_a_row_lose_nothing,
                a_closed_connection_publishes_and_declares_nothing,
                a_closed_connection_ends_its_consumers,
                a_connection_says_that_it_is_up_and_that_it_was_closed,
                closing_twice_is_fine,
            }
            ordering {
                one_consumer_is_served_and_the_next_when_it_is_gone,
                a_consumer_that_leaves_gives_back_all_it_had_in_its_order,
                a_queue_without_a_single_active_consumer_is_a_mismatch,
                lanes_run_beside_each_other_and_each_in_its_order,
                a_retried_message_is_not_overtaken_by_its_lane,
                a_stop_during_a_wait_gives_back_in_order,
                a_cut_during_a_wait_neither_reorders_nor_forgets_attempts,
            }
            batches {
                a_batch_is_settled_message_by_message,
                a_stop_handles_what_has_gathered,
            }
            partitions {
                a_key_has_one_part_and_many_keys_have_many,
                the_parts_have_one_dead_letter_queue,
                a_replayed_letter_goes_back_to_its_part,
                a_delayed_message_comes_back_to_its_part,
                fewer_parts_than_there_are_is_a_mismatch,
                another_instance_goes_on_with_the_parts_in_their_order,
            }
            service {
                instances_of_a_service_share_its_messages,
                each_service_has_its_own_copy,
                a_stop_finishes_what_runs_and_gives_back_the_rest,
                a_stop_drops_what_runs_longer_than_the_drain,
                what_is_handled_during_a_cut_does_not_run_twice,
                every_fetched_message_is_accounted_for_at_all_times,
            }
            publishing {
                what_a_handler_publishes_belongs_to_what_it_handles,
                many_messages_are_published_at_once_and_each_has_its_own_result,
                a_second_attempt_publishes_the_same_ids_again,
                a_trace_and_named_headers_go_on,
            }
            requests {
                a_request_is_answered_with_what_the_handler_returns,
                many_requests_at_a_time_each_get_their_own_reply,
                a_reply_says_whose_reply_it_is,
                what_is_published_for_a_request_belongs_to_its_conversation,
                a_request_that_nobody_takes_is_unroutable,
                a_request_that_is_not_answered_times_out_and_leaves_nothing_behind,
                a_failure_that_is_an_answer_is_told_and_not_retried,
                a_failed_request_is_answered_only_after_its_last_attempt,
                an_undecodable_request_is_told_so,
                a_reply_survives_a_cut,
                a_closed_connection_ends_the_waiting,
            }
            replies {
                a_request_whose_requester_is_gone_is_dead_lettered_once,
                a_lost_reply_may_be_retried_until_the_attempts_are_used_up,
                a_lost_reply_may_be_dropped,
                a_reply_address_that_is_not_allowed_is_malformed_and_nothing_runs,
                a_further_reply_address_can_be_allowed,
                a_message_that_nobody_waits_for_is_handled_without_a_reply,
            }
            service_outcomes {
                a_failed_message_is_tried_again_with_the_next_attempt,
                a_panicking_handler_is_tried_again_and_the_service_lives,
                a_handler_that_takes_too_long_is_tried_again,
                a_deferred_message_comes_back_as_the_same_attempt,
                a_permanent_error_is_dead_lettered_at_once,
                a_message_that_always_fails_is_dead_lettered_after_the_last_attempt,
                an_undecodable_body_is_dead_lettered,
                ids_that_contradict_each_other_are_dead_lettered,
                a_dead_letter_that_is_sent_back_runs,
                only_the_message_types_that_were_asked_for_are_handled,
                what_a_glob_does_not_match_is_not_handled,
            }
        }
    };
}
