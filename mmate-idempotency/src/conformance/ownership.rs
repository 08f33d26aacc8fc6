//! Leases and fences.

use std::time::Duration;

use super::Harness;
use super::harness::WINDOW;
use super::stage::{LEASE, Stage, assert_busy, assert_duplicate};
use crate::protocol::{Claim, Grant, Held};
use crate::store::Permit;

const MILLI: Duration = Duration::from_millis(1);

/// S14
pub async fn nobody_takes_over_before_the_lease_ends(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let permit = stage.granted("a").await;
    harness.advance(LEASE - MILLI).await;
    assert_eq!(stage.claim("a").await, Claim::Busy { remaining: MILLI });
    assert_eq!(stage.complete(&permit).await, Held::Yes);
}

/// S14
pub async fn an_ended_lease_is_taken_over_as_the_next_attempt(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let first = stage.granted("a").await;
    harness.advance(LEASE).await;
    let request = stage.request("a");
    let Claim::Granted(second) = stage.ask(&request).await else { panic!("granted") };
    assert!(second.taken_over);
    assert_eq!((second.attempt, second.fence), (2, first.fence() + 1));
    assert_busy(&stage.claim("a").await);
}

/// S19
pub async fn who_was_overtaken_is_refused_and_the_newer_record_is_untouched(
    harness: &impl Harness,
) {
    let stage = Stage::on(harness).await;
    let zombie = stage.granted("a").await;
    harness.advance(LEASE).await;
    let second = stage.granted("a").await;
    for done in [false, true] {
        let before = stage.claim("a").await;
        assert_eq!(stage.complete(&zombie).await, Held::Refused);
        assert_eq!(stage.release(&zombie).await, Held::Refused);
        assert_eq!(stage.heartbeat(&zombie).await, Held::Refused);
        assert_eq!(stage.claim("a").await, before);
        if !done {
            assert_eq!(stage.heartbeat(&second).await, Held::Yes);
            assert_eq!(stage.complete(&second).await, Held::Yes);
        }
    }
    assert_duplicate(&stage.claim("a").await);
}

/// S18
pub async fn a_lease_lasts_for_as_long_as_it_is_prolonged(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let permit = stage.granted("a").await;
    for _ in 0..20 {
        harness.advance(LEASE - MILLI).await;
        assert_eq!(stage.heartbeat(&permit).await, Held::Yes);
        assert_eq!(stage.claim("a").await, Claim::Busy { remaining: LEASE });
    }
    assert_eq!(stage.complete(&permit).await, Held::Yes);
}

/// S22: only the takeover ends a claim.
pub async fn who_is_late_but_was_not_overtaken_still_completes(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let permit = stage.granted("a").await;
    harness.advance(LEASE * 2).await;
    assert_eq!(stage.heartbeat(&permit).await, Held::Yes);
    assert_busy(&stage.claim("a").await);
    harness.advance(LEASE * 2).await;
    assert_eq!(stage.complete(&permit).await, Held::Yes);
    assert_duplicate(&stage.claim("a").await);
}

/// S20: across takeovers, releases, windows, purges and restarts.
pub async fn the_fence_rises_across_everything(harness: &impl Harness) {
    let mut stage = Stage::on(harness).await;
    let mut highest = 0;
    let mut rises = |fence: u64, across: &str| {
        assert!(fence > highest, "{fence} after {highest}, across {across}");
        highest = fence;
    };
    for _ in 0..2 {
        rises(stage.granted("a").await.fence(), "a purge or a restart");
        harness.advance(LEASE).await;
        let permit = stage.granted("a").await;
        rises(permit.fence(), "a takeover");
        assert_eq!(stage.release(&permit).await, Held::Yes);
        let permit = stage.granted("a").await;
        rises(permit.fence(), "a release");
        assert_eq!(stage.complete(&permit).await, Held::Yes);
        harness.advance(WINDOW).await;
        let permit = stage.granted("a").await;
        rises(permit.fence(), "a window");
        assert_eq!(stage.complete(&permit).await, Held::Yes);
        harness.advance(WINDOW).await;
        stage.store.purge(1000).await.expect("the store answers");
        rises(stage.granted("a").await.fence(), "a purge");
        if stage.store.promises().durable {
            harness.restart().await;
            stage = stage.again(harness).await;
        }
        harness.advance(LEASE).await;
    }
}

/// S19: who holds one key holds no other, also with the same owner and fence.
pub async fn a_claim_is_good_for_its_own_key_only(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let held = stage.granted("a").await;
    stage.granted("b").await;
    let mut request = stage.request("b");
    request.owner = held.holder().owner;
    let fence = held.fence();
    let forged = Permit::new(&request, Grant { fence, attempt: 1, taken_over: false });
    assert_eq!(stage.heartbeat(&forged).await, Held::Refused);
    assert_eq!(stage.release(&forged).await, Held::Refused);
    assert_eq!(stage.complete(&forged).await, Held::Refused);
    assert_busy(&stage.claim("b").await);
    assert_eq!(stage.complete(&held).await, Held::Yes);
}

/// It is the claim that counts, not the connection it came through.
pub async fn a_claim_may_be_used_through_any_store_of_the_records(harness: &impl Harness) {
    let one = Stage::on(harness).await;
    let other = one.again(harness).await;
    let permit = one.granted("a").await;
    assert_busy(&other.claim("a").await);
    assert_eq!(other.heartbeat(&permit).await, Held::Yes);
    assert_eq!(other.release(&permit).await, Held::Yes);
    let permit = other.granted("a").await;
    assert_eq!((permit.attempt(), one.complete(&permit).await), (2, Held::Yes));
    assert_duplicate(&other.claim("a").await);
    assert_duplicate(&one.claim("a").await);
}

/// S22: counted from now, not added to what is left.
pub async fn a_heartbeat_sets_the_lease_and_adds_nothing(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let permit = stage.granted("a").await;
    for lease in [LEASE * 3, LEASE, MILLI, LEASE * 2] {
        for _ in 0..2 {
            let held = stage.store.heartbeat(&permit, lease).await.expect("the store answers");
            assert_eq!(held, Held::Yes);
        }
        assert_eq!(stage.claim("a").await, Claim::Busy { remaining: lease });
    }
    harness.advance(LEASE * 2).await;
    assert_eq!(stage.granted("a").await.attempt(), 2);
}

/// S17: however an attempt ended, it was one.
pub async fn attempts_are_counted_across_takeovers_and_releases(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    for attempt in 1..8 {
        let permit = stage.granted("a").await;
        assert_eq!(permit.attempt(), attempt);
        if attempt % 2 == 0 {
            assert_eq!(stage.release(&permit).await, Held::Yes);
            harness.advance(WINDOW - MILLI).await;
        } else {
            harness.advance(LEASE + WINDOW - MILLI).await;
        }
    }
}

/// S40: from then on it is as if nobody had ever begun.
pub async fn what_was_abandoned_is_forgotten_a_window_after_its_lease(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let permit = stage.granted("a").await;
    harness.advance(LEASE / 2).await;
    assert_eq!(stage.heartbeat(&permit).await, Held::Yes);
    harness.advance(LEASE + WINDOW).await;
    assert_eq!(stage.heartbeat(&permit).await, Held::Refused);
    assert_eq!(stage.complete(&permit).await, Held::Refused);
    let request = stage.request("a");
    let Claim::Granted(grant) = stage.ask(&request).await else { panic!("it is granted") };
    assert_eq!((grant.attempt, grant.taken_over), (1, false));
    assert!(grant.fence > permit.fence());
    assert_eq!(stage.release(&permit).await, Held::Refused);
    assert_busy(&stage.claim("a").await);
}

/// S14, S18: whoever sets the clock back, the work that is held stays held, and what is done stays
/// done. Only a takeover has to wait for longer.
pub async fn a_clock_that_goes_back_ends_no_claim_and_forgets_nothing(harness: &impl Harness) {
    const BACK: Duration = Duration::from_secs(1800);
    let stage = Stage::on(harness).await;
    harness.advance(2 * BACK).await;
    let (held, given_back) = (stage.granted("held").await, stage.granted("given back").await);
    let done = stage.granted("done").await;
    assert_eq!(stage.complete(&done).await, Held::Yes);
    assert_eq!(stage.release(&given_back).await, Held::Yes);
    harness.turn_back(BACK).await;
    assert_eq!(stage.claim("held").await, Claim::Busy { remaining: BACK + LEASE });
    assert_duplicate(&stage.claim("done").await);
    assert_eq!(stage.complete(&done).await, Held::Yes);
    let again = stage.granted("given back").await;
    assert!(again.fence() > given_back.fence());
    assert_eq!(stage.release(&given_back).await, Held::Refused);
    // The next heartbeat is by the new time.
    assert_eq!(stage.heartbeat(&held).await, Held::Yes);
    assert_eq!(stage.claim("held").await, Claim::Busy { remaining: LEASE });
    assert_eq!(stage.complete(&held).await, Held::Yes);
    assert_duplicate(&stage.claim("held").await);
}

/// S19
pub async fn who_was_overtaken_stays_so_when_the_clock_goes_back(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    harness.advance(WINDOW).await;
    let zombie = stage.granted("a").await;
    harness.advance(LEASE).await;
    let second = stage.granted("a").await;
    // To a time at which the first lease was good.
    harness.turn_back(LEASE).await;
    assert_eq!(stage.heartbeat(&zombie).await, Held::Refused);
    assert_eq!(stage.complete(&zombie).await, Held::Refused);
    assert_busy(&stage.claim("a").await);
    assert_eq!(stage.release(&second).await, Held::Yes);
    let third = stage.granted("a").await;
    assert!(third.fence() > second.fence());
    assert_eq!(stage.complete(&second).await, Held::Refused);
    assert_eq!(stage.complete(&third).await, Held::Yes);
    assert_duplicate(&stage.claim("a").await);
}
