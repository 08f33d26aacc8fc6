//! Claiming, completing, giving back.

use bytes::Bytes;
use mmate_core::TraceParent;

use super::Harness;
use super::stage::{LEASE, Stage, assert_busy, assert_duplicate, assert_granted};
use crate::protocol::{Claim, Held, Seen};
use crate::store::Permit;

/// S1
pub async fn the_first_claim_is_granted_and_the_second_is_busy(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let permit = stage.granted("a").await;
    assert_eq!(permit.attempt(), 1);
    assert_eq!(stage.claim("a").await, Claim::Busy { remaining: LEASE });
    assert_granted(&stage.claim("b").await);
}

/// S3: not acknowledged while it may still fail.
pub async fn what_is_in_progress_is_never_a_duplicate(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let permit = stage.granted("a").await;
    for _ in 0..10 {
        assert_busy(&stage.claim("a").await);
        assert_eq!(stage.heartbeat(&permit).await, Held::Yes);
    }
}

/// S48
pub async fn what_is_done_is_a_duplicate_that_knows_since_when_and_through_whom(
    harness: &impl Harness,
) {
    let stage = Stage::on(harness).await;
    let permit = stage.granted("a").await;
    harness.advance(LEASE / 2).await;
    let since = harness.now().await;
    assert_eq!(stage.complete(&permit).await, Held::Yes);
    harness.advance(LEASE).await;
    let seen = Seen { since, by: "reserve-stock".into(), reply: None, trace: None };
    assert_eq!(stage.claim("a").await, Claim::Duplicate(seen));
}

/// S48
pub async fn a_duplicate_knows_the_trace_in_which_it_was_done(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let place = |number: u8| {
        let text = format!("00-{number:032x}-{number:016x}-01");
        text.parse::<TraceParent>().expect("a place in a trace")
    };
    let mut request = stage.request("a");
    request.trace = Some(place(1));
    let Claim::Granted(first) = stage.ask(&request).await else { panic!("granted") };
    assert_eq!(stage.release(&Permit::new(&request, first)).await, Held::Yes);
    let mut request = stage.request("a");
    request.trace = Some(place(2));
    let Claim::Granted(second) = stage.ask(&request).await else { panic!("granted") };
    assert_eq!(stage.complete(&Permit::new(&request, second)).await, Held::Yes);
    for later in [None, Some(place(3))] {
        let mut request = stage.request("a");
        request.trace = later;
        let Claim::Duplicate(seen) = stage.ask(&request).await else { panic!("a duplicate") };
        assert_eq!(seen.trace, Some(place(2)));
    }
}

/// S52
pub async fn a_reply_comes_back_with_the_duplicate(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    for (id, reply) in [("short", &b"{}"[..]), ("odd", &[0, 255, 0][..]), ("empty", &b""[..])] {
        let reply = Bytes::from_static(reply);
        let permit = stage.granted(id).await;
        let completed = stage.store.complete(&permit, Some(reply.clone())).await;
        assert_eq!(completed.expect("the store answers"), Held::Yes);
        let Claim::Duplicate(seen) = stage.claim(id).await else { panic!("a duplicate") };
        assert_eq!(seen.reply, Some(reply));
    }
}

/// S9
pub async fn what_was_given_back_is_granted_again_as_the_next_attempt(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let mut before = stage.granted("a").await;
    for _ in 0..3 {
        assert_eq!(stage.release(&before).await, Held::Yes);
        let next = stage.granted("a").await;
        assert_eq!(next.attempt(), before.attempt() + 1);
        assert!(next.fence() > before.fence());
        before = next;
    }
    assert_eq!(stage.complete(&before).await, Held::Yes);
    assert_duplicate(&stage.claim("a").await);
}

/// S33: it wins over "in progress", and over a lease that is over.
pub async fn another_content_is_a_conflict_before_anything_else(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let permit = stage.granted("a").await;
    assert_eq!(stage.claim_content("a", Some(1)).await, Claim::Conflict);
    harness.advance(LEASE).await;
    assert_eq!(stage.claim_content("a", Some(1)).await, Claim::Conflict);
    assert_eq!(stage.complete(&permit).await, Held::Yes);
    assert_eq!(stage.claim_content("a", Some(1)).await, Claim::Conflict);
    assert_duplicate(&stage.claim("a").await);

    let permit = stage.granted("b").await;
    assert_eq!(stage.release(&permit).await, Held::Yes);
    assert_granted(&stage.claim_content("b", Some(1)).await);
}

/// S33
pub async fn what_is_not_to_be_compared_is_no_conflict(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    stage.done("a").await;
    assert_duplicate(&stage.claim_content("a", None).await);
    assert_granted(&stage.claim_content("b", None).await);
    assert_busy(&stage.claim_content("b", Some(1)).await);
    harness.advance(LEASE).await;
    assert_granted(&stage.claim_content("b", Some(1)).await);
}

/// S45
pub async fn the_same_attempt_recognises_its_own_claim(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let request = stage.request("a");
    let first = stage.ask(&request).await;
    assert_granted(&first);
    assert_eq!(stage.ask(&request).await, first);
    harness.advance(LEASE / 2).await;
    assert_eq!(stage.ask(&request).await, first);
    harness.advance(LEASE - std::time::Duration::from_millis(1)).await;
    assert_busy(&stage.claim("a").await);
}

/// S45
pub async fn completing_and_releasing_twice_is_the_same_as_once(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let permit = stage.done("a").await;
    let first = stage.claim("a").await;
    harness.advance(LEASE).await;
    assert_eq!(stage.complete(&permit).await, Held::Yes);
    assert_eq!(stage.claim("a").await, first);
    assert_eq!(stage.release(&permit).await, Held::Refused);
    assert_eq!(stage.claim("a").await, first);

    let permit = stage.granted("b").await;
    assert_eq!(stage.release(&permit).await, Held::Yes);
    assert_eq!(stage.release(&permit).await, Held::Yes);
    assert_eq!(stage.complete(&permit).await, Held::Refused);
    assert_eq!(stage.heartbeat(&permit).await, Held::Refused);
    assert_granted(&stage.claim("b").await);
}

/// S19
pub async fn nobody_holds_what_was_never_claimed(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let forged = stage.forged("a");
    assert_eq!(stage.heartbeat(&forged).await, Held::Refused);
    assert_eq!(stage.complete(&forged).await, Held::Refused);
    assert_eq!(stage.release(&forged).await, Held::Refused);
    assert_eq!(stage.granted("a").await.attempt(), 1);
    assert_eq!(stage.complete(&forged).await, Held::Refused);
    assert_busy(&stage.claim("a").await);
}
