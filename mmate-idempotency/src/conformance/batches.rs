//! Many calls of one process at once, which a store may make together.

use futures_util::future::join_all;

use super::Harness;
use super::stage::{Stage, assert_busy, assert_duplicate, assert_granted};
use crate::protocol::{Claim, Held};
use crate::store::{ClaimRequest, Permit};

fn is_granted(claim: &Claim) -> bool {
    matches!(claim, Claim::Granted(_))
}

/// What was granted of these.
fn permits(requests: &[ClaimRequest<'_>], claims: &[Claim]) -> Vec<Permit> {
    let pairs = requests.iter().zip(claims);
    let granted = pairs.filter_map(|(request, claim)| match claim {
        Claim::Granted(grant) => Some(Permit::new(request, *grant)),
        _ => None,
    });
    granted.collect()
}

/// S26: a batch with copies in it.
pub async fn of_copies_in_one_batch_one_is_granted(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    for copies in [2, 3, 17] {
        let id = format!("{copies}");
        let claims = join_all((0..copies).map(|_| stage.claim(&id))).await;
        assert_eq!(claims.iter().filter(|claim| is_granted(claim)).count(), 1, "{claims:?}");
        claims.iter().filter(|claim| !is_granted(claim)).for_each(assert_busy);
    }
}

/// S26
pub async fn each_call_of_a_batch_gets_its_own_answer(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    stage.done("done").await;
    stage.granted("held").await;
    for round in 0..5 {
        let (new, other) = (format!("new-{round}"), format!("other-{round}"));
        let claims = join_all([
            stage.claim_content("done", Some(0)),
            stage.claim_content(&new, Some(0)),
            stage.claim_content("held", Some(1)),
            stage.claim_content("held", Some(0)),
            stage.claim_content("done", Some(1)),
            stage.claim_content(&other, Some(1)),
        ])
        .await;
        assert_duplicate(&claims[0]);
        assert_granted(&claims[1]);
        assert_eq!(claims[2], Claim::Conflict);
        assert_busy(&claims[3]);
        assert_eq!(claims[4], Claim::Conflict);
        assert_granted(&claims[5]);
    }
}

/// Two processes claim the same ids, one from each end, and then complete what they were granted
/// from each end: neither waits for the other for ever.
pub async fn batches_in_opposite_order_get_by_each_other(harness: &impl Harness) {
    let one = Stage::on(harness).await;
    let other = one.again(harness).await;
    for round in 0..5 {
        let forward: Vec<_> = (0..30).map(|id| one.request(&format!("{round}-{id}"))).collect();
        let backward: Vec<_> =
            (0..30).rev().map(|id| other.request(&format!("{round}-{id}"))).collect();
        let (here, there) = tokio::join!(
            join_all(forward.iter().map(|request| one.ask(request))),
            join_all(backward.iter().map(|request| other.ask(request))),
        );
        let (here, there) = (permits(&forward, &here), permits(&backward, &there));
        assert_eq!(here.len() + there.len(), 30, "each is granted to one of them");
        let (here, there) = tokio::join!(
            join_all(here.iter().rev().map(|permit| one.complete(permit))),
            join_all(there.iter().rev().map(|permit| other.complete(permit))),
        );
        assert!(here.iter().chain(&there).all(|held| *held == Held::Yes));
    }
}

/// All kinds of calls of many keys at once: none gets another's answer.
pub async fn calls_of_all_kinds_at_once_get_their_own_answers(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let held = join_all((0..20).map(|id| async move { (id, format!("held-{id}")) })).await;
    let mut permits = Vec::new();
    for (_, id) in &held {
        permits.push(stage.granted(id).await);
    }
    let forged: Vec<_> = held.iter().map(|(_, id)| stage.forged(id)).collect();
    let fresh: Vec<_> = (0..20).map(|id| format!("new-{id}")).collect();
    let (beats, released, completed, refused, claims) = tokio::join!(
        join_all(permits[..5].iter().map(|permit| stage.heartbeat(permit))),
        join_all(permits[5..10].iter().map(|permit| stage.release(permit))),
        join_all(permits[10..].iter().map(|permit| stage.complete(permit))),
        join_all(forged.iter().map(|permit| stage.complete(permit))),
        join_all(fresh.iter().map(|id| stage.claim(id))),
    );
    assert!(beats.iter().chain(&released).chain(&completed).all(|held| *held == Held::Yes));
    assert!(refused.iter().all(|held| *held == Held::Refused));
    claims.iter().for_each(assert_granted);
    for (number, id) in &held {
        let claim = stage.claim(id).await;
        match number {
            0..5 => assert_busy(&claim),
            5..10 => assert_granted(&claim),
            _ => assert_duplicate(&claim),
        }
    }
}
