//! Calls whose asker goes away: a future that is dropped after it has begun, as by a timeout. The
//! store may have applied them, or may do so yet; asked again, it gives the same answer (S45).

use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, poll};

use super::Harness;
use super::stage::{LEASE, Stage, assert_busy, assert_duplicate, assert_granted};
use crate::protocol::{Claim, Held};
use crate::store::Permit;

const ROUNDS: u32 = 10;

/// Begins, and is dropped.
fn cancel(call: impl Future) {
    drop(call.now_or_never());
}

/// S45
pub async fn a_cancelled_claim_is_recognised_when_it_is_asked_for_again(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    for round in 0..ROUNDS {
        let id = format!("{round}");
        let request = stage.request(&id);
        cancel(stage.ask(&request));
        let Claim::Granted(grant) = stage.ask(&request).await else { panic!("it is granted") };
        assert_eq!(grant.attempt, 1);
        assert_busy(&stage.claim(&id).await);
        assert_eq!(stage.complete(&Permit::new(&request, grant)).await, Held::Yes);
        assert_duplicate(&stage.claim(&id).await);
    }
}

/// S11, S45: what was perhaps granted can be given back without knowing its fence.
pub async fn a_cancelled_claim_can_be_given_back(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    for round in 0..ROUNDS {
        let id = format!("{round}");
        let request = stage.request(&id);
        let Claim::Granted(mut grant) = stage.ask(&request).await else { panic!("it is granted") };
        grant.fence = 0;
        assert_eq!(stage.release(&Permit::new(&request, grant)).await, Held::Yes);
        assert_granted(&stage.claim(&id).await);
        assert_eq!(stage.release(&Permit::new(&request, grant)).await, Held::Refused);
        assert_busy(&stage.claim(&id).await);
    }
}

/// S15, S45
pub async fn a_cancelled_completion_is_so_when_it_is_asked_for_again(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    for round in 0..ROUNDS {
        let id = format!("{round}");
        let permit = stage.granted(&id).await;
        let reply = || Some(Bytes::from_static(b"reply"));
        cancel(stage.store.complete(&permit, reply()));
        let completed = stage.store.complete(&permit, reply()).await;
        assert_eq!(completed.expect("the store answers"), Held::Yes);
        let Claim::Duplicate(seen) = stage.claim(&id).await else { panic!("a duplicate") };
        assert_eq!(seen.reply, reply());
    }
}

/// S9, S45
pub async fn a_cancelled_release_is_so_when_it_is_asked_for_again(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    for round in 0..ROUNDS {
        let id = format!("{round}");
        let permit = stage.granted(&id).await;
        cancel(stage.release(&permit));
        assert_eq!(stage.release(&permit).await, Held::Yes);
        assert_eq!(stage.granted(&id).await.attempt(), 2);
        assert_busy(&stage.claim(&id).await);
    }
}

/// S22, S45
pub async fn a_cancelled_heartbeat_does_no_harm(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let permit = stage.granted("a").await;
    for _ in 0..ROUNDS {
        harness.advance(LEASE - std::time::Duration::from_millis(1)).await;
        cancel(stage.heartbeat(&permit));
        assert_eq!(stage.heartbeat(&permit).await, Held::Yes);
        assert_busy(&stage.claim("a").await);
    }
    assert_eq!(stage.complete(&permit).await, Held::Yes);
}

/// Of many calls that are made at once, some are cancelled, after the others have begun or before:
/// the others get their answers.
pub async fn cancelled_calls_leave_their_neighbours_alone(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    for round in 0..ROUNDS {
        let requests: Vec<_> = (0..32).map(|id| stage.request(&format!("{round}-{id}"))).collect();
        let every_third = |number: &usize| number.is_multiple_of(3);
        let ask = |number: usize| stage.ask(&requests[number]);
        let mut cancelled = Box::pin(join_all((0..32).filter(every_third).map(ask)));
        let rest = (0..32).filter(|number| !every_third(number));
        let mut others = pin!(join_all(rest.map(ask)));
        let _ = poll!(cancelled.as_mut());
        let mut begun = Poll::Pending;
        if round % 2 == 0 {
            begun = poll!(others.as_mut());
        }
        drop(cancelled);
        let claims = match begun {
            Poll::Ready(claims) => claims,
            Poll::Pending => others.await,
        };
        claims.iter().for_each(assert_granted);
        let again = join_all(requests.iter().map(|request| stage.ask(request))).await;
        again.iter().for_each(assert_granted);
    }
}
