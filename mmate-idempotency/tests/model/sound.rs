//! The strategies as they are: nothing goes wrong, whatever happens around them.

use super::explore::{bound, explore};
use super::rules::{A, Faults, Message, Rules, Strategy};
use super::wrong::Sight;

const OTHER: Message = Message { id: "b", copies: 1, ..A };

fn tracked() -> Rules {
    Rules::of(Strategy::Tracked)
}

/// S12, S14, S19, S45: processes die, calls and answers are late or lost, and anybody may be
/// paused for any time.
#[test]
fn tracked_survives_a_crash_and_a_lost_call() {
    let faults = Faults { crashes: 1, losses: 1, cuts: bound(0, 1), ..NONE };
    let rules = Rules { horizon: bound(2, 3), faults, ..tracked() };
    let expected = [
        Sight::Takeover,
        Sight::DuplicateSuppressed,
        Sight::Deferred,
        Sight::LeaseLost,
        Sight::ZombieRefused,
        Sight::EffectRefused,
        Sight::SecondEffect,
        Sight::GrantedToNobody,
        Sight::Quiet,
    ];
    explore("tracked, a crash, a loss", rules, &expected);
}

/// S5, S6, S9, S10, S11
#[test]
fn tracked_survives_failing_handlers_and_lost_acknowledgements() {
    let faults = Faults { cuts: 1, failures: 1, losses: bound(0, 1), ..NONE };
    let rules = Rules { horizon: 3, faults, ..tracked() };
    let expected = [Sight::DuplicateSuppressed, Sight::ZombieRefused, Sight::Quiet];
    explore("tracked, a cut, a failure", rules, &expected);
}

/// S1, S18: while holders are in time there is one effect, however long they take, and whatever the
/// broker does.
#[test]
fn tracked_in_time_has_one_effect() {
    let faults = Faults { cuts: 1, failures: 1, ..NONE };
    let rules = Rules { timely: true, horizon: bound(5, 8), faults, ..tracked() };
    let expected = [Sight::DuplicateSuppressed, Sight::Deferred, Sight::Quiet];
    explore("tracked, in time", rules, &expected);
}

/// S14: a takeover is from the dead only.
#[test]
fn tracked_in_time_is_taken_over_from_the_dead_only() {
    let faults = Faults { crashes: 2, losses: bound(0, 1), ..NONE };
    let rules = Rules { timely: true, horizon: 4, faults, ..tracked() };
    explore("tracked, in time, two crashes", rules, &[Sight::Takeover, Sight::SecondEffect]);
}

/// S1, S12, S14: of three instances.
#[test]
fn tracked_works_with_three_instances() {
    let messages = vec![Message { copies: 3, ..A }];
    let faults = Faults { crashes: 1, losses: bound(0, 1), ..NONE };
    let rules = Rules { instances: 3, messages, horizon: 2, faults, ..tracked() };
    explore("tracked, three instances", rules, &[Sight::Takeover, Sight::ZombieRefused]);
}

/// S37, S39, S40: what is over is purged at any time, or not.
#[test]
fn tracked_runs_again_after_the_window_and_only_then() {
    let faults = Faults { crashes: 1, ..NONE };
    let rules = Rules { lease: 1, window: Some(1), horizon: bound(3, 5), faults, ..tracked() };
    let expected = [Sight::RunAgainAfterWindow, Sight::Purged, Sight::Takeover];
    explore("tracked, a window", rules, &expected);
}

/// S41, S46: a store forgets what is done, or anything: at least once, and fences rise.
#[test]
fn tracked_loses_nothing_when_its_store_forgets() {
    let faults = Faults { crashes: 1, forgets: 1, ..NONE };
    let rules = Rules { horizon: bound(2, 4), faults, ..tracked() };
    explore("tracked, forgets what is done", rules.clone(), &[Sight::SecondEffect]);
    let rules = Rules { forgets_all: true, ..rules };
    explore("tracked, forgets anything", rules, &[Sight::SecondEffect, Sight::ZombieRefused]);
}

/// S10, S33: one key, two contents.
#[test]
fn tracked_tells_conflicts_from_duplicates() {
    let messages = vec![Message { copies: 1, ..A }, Message { content: 1, copies: 1, ..A }];
    let faults = Faults { crashes: 1, failures: 1, ..NONE };
    let rules = Rules { messages, horizon: bound(2, 3), faults, ..tracked() };
    explore("tracked, a conflict", rules, &[Sight::Conflict, Sight::Takeover, Sight::Quiet]);
}

/// S31
#[test]
fn tracked_keeps_two_keys_apart() {
    let messages = vec![Message { copies: bound(1, 2), ..A }, OTHER];
    let faults = Faults { crashes: 1, ..NONE };
    let rules = Rules { messages, horizon: bound(1, 3), faults, ..tracked() };
    explore("tracked, two keys", rules, &[Sight::DuplicateSuppressed, Sight::Quiet]);
}

fn transactional() -> Rules {
    Rules { horizon: 1, ..Rules::of(Strategy::Transactional) }
}

/// S12, S15, S16, S24: whatever is lost, there is one effect.
#[test]
fn transactional_has_one_effect() {
    let messages = vec![Message { copies: 3, ..A }];
    let losses = bound(2, 4);
    let faults = Faults { crashes: 2, losses, cuts: 1, failures: 1, forgets: 0 };
    let rules = Rules { messages, faults, ..transactional() };
    let expected = [
        Sight::CommittedUnheard,
        Sight::UncommittedUnheard,
        Sight::DuplicateSuppressed,
        Sight::Quiet,
    ];
    explore("transactional", rules, &expected);
}

#[test]
fn transactional_works_with_three_instances_and_two_keys() {
    let messages = vec![A, OTHER];
    let faults = Faults { crashes: 1, losses: 1, cuts: 1, ..NONE };
    let rules = Rules { instances: 3, messages, faults, ..transactional() };
    explore("transactional, three instances", rules, &[Sight::CommittedUnheard, Sight::Quiet]);
}

/// S33, S37
#[test]
fn transactional_has_a_window_and_conflicts() {
    let messages = vec![A, Message { content: 1, copies: 1, ..A }];
    let faults = Faults { crashes: 1, losses: 1, ..NONE };
    let rules = Rules { messages, window: Some(2), horizon: 4, faults, ..transactional() };
    let expected = [Sight::Conflict, Sight::RunAgainAfterWindow, Sight::Purged];
    explore("transactional, a window", rules, &expected);
}

/// A lock keeps two apart while its lease holds, and loses nothing; a later copy runs again.
#[test]
fn a_lock_keeps_apart_and_recognises_nothing() {
    let locked = Rules::of(Strategy::Locked);
    let faults = Faults { crashes: 1, losses: bound(0, 1), ..NONE };
    let rules = Rules { horizon: 3, faults, ..locked.clone() };
    let expected = [Sight::SecondEffect, Sight::Takeover, Sight::EffectRefused, Sight::Quiet];
    explore("locked", rules, &expected);
    let faults = Faults { cuts: 1, failures: 1, ..NONE };
    let rules = Rules { timely: true, horizon: bound(3, 5), faults, ..locked };
    explore("locked, in time", rules, &[Sight::SecondEffect, Sight::Deferred]);
}

const NONE: Faults = Faults { crashes: 0, losses: 0, cuts: 0, failures: 0, forgets: 0 };
