//! Two at once, of whom one must win.

use tokio::task::JoinSet;

use super::Harness;
use super::stage::{LEASE, Stage, assert_busy, assert_duplicate, assert_granted};
use crate::protocol::{Claim, Held};
use crate::store::Permit;

const ROUNDS: u32 = 20;

/// S45: a call and its repetition, both on their way at once.
pub async fn one_attempt_asking_many_times_at_once_is_granted_once(harness: &impl Harness) {
    let one = Stage::on(harness).await;
    let other = one.again(harness).await;
    for round in 0..ROUNDS {
        let request = one.request(&format!("{round}"));
        let (a, b, c) = tokio::join!(one.ask(&request), other.ask(&request), one.ask(&request));
        assert_granted(&a);
        assert!(a == b && b == c, "{a:?}, {b:?}, {c:?}");
        assert_busy(&one.claim(&format!("{round}")).await);
    }
}

/// S14, S19: the late holder's completion, or the takeover.
pub async fn of_a_late_completion_and_a_takeover_one_wins(harness: &impl Harness) {
    let one = Stage::on(harness).await;
    let other = one.again(harness).await;
    for round in 0..ROUNDS {
        let id = format!("{round}");
        let permit = one.granted(&id).await;
        harness.advance(LEASE).await;
        let request = other.request(&id);
        let (held, claim) = if round % 2 == 0 {
            tokio::join!(one.complete(&permit), other.ask(&request))
        } else {
            let (claim, held) = tokio::join!(other.ask(&request), one.complete(&permit));
            (held, claim)
        };
        match (held, claim) {
            (Held::Yes, Claim::Duplicate(_)) => {}
            (Held::Refused, Claim::Granted(grant)) => {
                let second = Permit::new(&request, grant);
                assert!(second.fence() > permit.fence());
                assert_eq!(other.complete(&second).await, Held::Yes);
            }
            both => panic!("one of them wins, not {both:?}"),
        }
        assert_duplicate(&one.claim(&id).await);
    }
}

/// S14, S18: the late heartbeat, or the takeover.
pub async fn of_a_late_heartbeat_and_a_takeover_one_wins(harness: &impl Harness) {
    let one = Stage::on(harness).await;
    let other = one.again(harness).await;
    for round in 0..ROUNDS {
        let id = format!("{round}");
        let permit = one.granted(&id).await;
        harness.advance(LEASE).await;
        let (held, claim) = tokio::join!(one.heartbeat(&permit), other.claim(&id));
        match (held, &claim) {
            (Held::Yes, Claim::Busy { .. }) => {
                assert_eq!(one.complete(&permit).await, Held::Yes);
            }
            (Held::Refused, Claim::Granted(_)) => {
                assert_eq!(one.complete(&permit).await, Held::Refused);
            }
            both => panic!("one of them wins, not {both:?}"),
        }
    }
}

/// S9: the same claim is given back and completed, by a task that was left behind.
pub async fn of_a_completion_and_a_release_one_wins(harness: &impl Harness) {
    let one = Stage::on(harness).await;
    let other = one.again(harness).await;
    for round in 0..ROUNDS {
        let id = format!("{round}");
        let permit = one.granted(&id).await;
        let (completed, released) = tokio::join!(one.complete(&permit), other.release(&permit));
        let claim = one.claim(&id).await;
        match (completed, released) {
            (Held::Yes, Held::Refused) => assert_duplicate(&claim),
            (Held::Refused, Held::Yes) => assert_granted(&claim),
            both => panic!("one of them wins, not {both:?}"),
        }
    }
}

/// S18: a holder prolongs its lease while many others ask.
pub async fn heartbeats_beside_claims_keep_the_claim(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let other = stage.again(harness).await;
    let permit = stage.granted("a").await;
    let mut tasks = JoinSet::new();
    for number in 0..6 {
        let stage = if number % 2 == 0 { stage.clone() } else { other.clone() };
        tasks.spawn(async move {
            for _ in 0..30 {
                assert_busy(&stage.claim("a").await);
            }
        });
    }
    for _ in 0..60 {
        assert_eq!(stage.heartbeat(&permit).await, Held::Yes);
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task fails");
    }
    assert_eq!(other.complete(&permit).await, Held::Yes);
    assert_duplicate(&stage.claim("a").await);
}
