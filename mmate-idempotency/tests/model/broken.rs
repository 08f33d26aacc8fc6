//! What is wrong is caught: each defect leads to something that must not be. An exploration that
//! misses one of these would show nothing of the sound strategies.

use super::explore::catch;
use super::rules::{A, Defect, Faults, Message, Rules, Strategy};

fn tracked(defect: Defect) -> Rules {
    Rules::of(Strategy::Tracked).broken(defect)
}

fn with(faults: Faults, rules: Rules) -> Rules {
    Rules { faults, ..rules }
}

const NONE: Faults = Faults { crashes: 0, losses: 0, cuts: 0, failures: 0, forgets: 0 };
const CRASH: Faults = Faults { crashes: 1, ..NONE };
const LOSS: Faults = Faults { losses: 1, ..NONE };

/// S7
#[test]
fn check_then_mark() {
    catch(tracked(Defect::CheckThenMark), "nobody is granted what another holds");
}

/// S9, S12: the message is acknowledged as a duplicate although its only handler died.
#[test]
fn mark_before_the_handler() {
    let rules = tracked(Defect::MarkBeforeHandler);
    catch(with(CRASH, rules), "what is acknowledged has had its effect");
}

/// S3
#[test]
fn acknowledge_when_busy() {
    catch(tracked(Defect::AckWhenBusy), "what is acknowledged has had its effect");
}

/// S19
#[test]
fn unlock_without_being_the_owner() {
    let failure = Faults { failures: 1, ..NONE };
    let rules = with(failure, tracked(Defect::UnlockWithoutOwner));
    catch(rules, "who does not hold a record does not change it");
}

/// S19
#[test]
fn complete_whoever_has_it() {
    let rules = tracked(Defect::UnconditionalComplete);
    catch(rules, "who does not hold a record does not change it");
}

/// S31
#[test]
fn a_key_without_its_scope() {
    let messages = vec![Message { copies: 1, ..A }, Message { scope: "t", copies: 1, ..A }];
    let rules = Rules { messages, ..tracked(Defect::KeyByIdAlone) };
    catch(rules, "what is acknowledged has had its effect");
}

/// S36
#[test]
fn a_key_that_folds_case() {
    let other = Message { id: "A", content: 1, copies: 1, ..A };
    let messages = vec![Message { copies: 1, ..A }, other];
    let rules = Rules { messages, ..tracked(Defect::CaseFoldingKey) };
    catch(rules.clone(), "only failures and conflicts are dead letters");
    let messages = vec![Message { copies: 1, ..A }, Message { content: 0, ..other }];
    catch(Rules { messages, ..rules }, "what is acknowledged has had its effect");
}

/// S41, and what comes of it.
#[test]
fn evict_what_is_in_progress() {
    catch(tracked(Defect::EvictInProgress), "what is in progress is not forgotten");
    let forget = Faults { forgets: 1, ..NONE };
    let rules = with(forget, tracked(Defect::ForgetInProgress));
    catch(Rules { forgets_all: true, ..rules }, "nobody is granted what another holds");
}

/// S18: a long handler without heartbeats, although nothing fails.
#[test]
fn no_heartbeat() {
    let rules = Rules { timely: true, ..tracked(Defect::NoHeartbeat) };
    catch(rules, "nobody takes over from one who is alive and in time");
}

/// S14
#[test]
fn take_over_before_the_lease_ends() {
    catch(tracked(Defect::TakeoverBeforeTheEnd), "nobody is granted what another holds");
}

/// S20: a fence that counts from 1 falls when a record's time is over.
#[test]
fn a_fence_from_one() {
    let window = Rules { lease: 1, window: Some(1), horizon: 5, ..tracked(Defect::FenceFromOne) };
    catch(window, "fences rise");
}

/// S20: without the fence in the effect, one who was overtaken has the last word.
#[test]
fn no_fence_in_the_effect() {
    let mut rules = Rules::of(Strategy::Tracked);
    rules.fenced = false;
    catch(rules, "effects come in the order of their fences");
}

/// S15
#[test]
fn acknowledge_when_it_is_not_known_whether_that_was_recorded() {
    let rules = tracked(Defect::AckOnUnknownCompletion);
    catch(with(LOSS, rules), "what is acknowledged is done");
}

/// S42, S43
#[test]
fn run_when_the_store_does_not_answer() {
    let rules = Rules { timely: true, ..tracked(Defect::RunWhenUnanswered) };
    catch(with(LOSS, rules), "a second effect has a documented reason");
}

fn transactional(defect: Defect) -> Rules {
    with(LOSS, Rules::of(Strategy::Transactional).broken(defect))
}

/// S16
#[test]
fn acknowledge_a_commit_whose_answer_is_lost() {
    let rules = transactional(Defect::AckOnUnknownCommit);
    catch(rules, "what is acknowledged has had its effect");
}

/// S16: a commit that failed is not one that did not happen.
#[test]
fn dead_letter_a_commit_whose_answer_is_lost() {
    let rules = transactional(Defect::DeadLetterOnUnknownCommit);
    catch(rules, "only failures and conflicts are dead letters");
}

/// S24
#[test]
fn an_effect_outside_of_the_transaction() {
    let rules = transactional(Defect::EffectOutsideOfTransaction);
    catch(rules, "a second effect has a documented reason");
}
