//! Everything at once: every message is accounted for.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::{Chaos, HandlerError, Outcome};

use crate::house::{House, Phase, counts_when, in_process, script, stop};

in_process! {
    under_chaos_each_message_has_one_effect_and_every_delivery_is_accounted_for,
}

/// S47, F34: counts are conserved at every look that `counts_when` takes.
async fn under_chaos_each_message_has_one_effect_and_every_delivery_is_accounted_for(house: House) {
    const MESSAGES: usize = 200;
    let is_poison = |id: &str| id.ends_with('7');
    let moody = script(move |visit| async move {
        if visit.phase == Phase::AfterEffect {
            return Ok(Outcome::Done);
        }
        if is_poison(&visit.id) {
            return Err(HandlerError::permanent("poison"));
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..3))).await;
        match fastrand::u8(0..10) {
            0 => Err(HandlerError::retryable("not now")),
            1 => Ok(Outcome::Defer { after: Duration::from_millis(5) }),
            _ => Ok(Outcome::Done),
        }
    });
    let first = house.instance(Arc::clone(&moody)).await;
    let second = house.instance(moody).await;
    house.broker.inner().chaos(Chaos::new().duplicates(0.2).dropped_acks(0.1).seed(7));
    for n in 0..MESSAGES {
        house.publish(first.publisher(), &format!("{n}")).await;
        if n % 10 == 0 {
            // The publisher repeats itself; and once somebody else uses its id.
            house.publish(second.publisher(), &format!("{n}")).await;
            let other = house.message_with(&format!("{n}"), "another content");
            second.publisher().publish(other).await.unwrap();
        }
    }
    let idle = house.broker.inner().idle();
    tokio::pin!(idle);
    loop {
        // The looks in between are the law's.
        counts_when(&[&first, &second], |_| true).await;
        tokio::select! {
            () = &mut idle => break,
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    let counts = counts_when(&[&first, &second], |counts| counts.in_flight == 0).await;
    for n in 0..MESSAGES {
        let id = format!("{n}");
        let expected = usize::from(!is_poison(&id));
        assert_eq!(house.effects_of(&id).await, expected, "{id}");
    }
    assert_eq!(counts.succeeded, MESSAGES as u64 * 9 / 10);
    assert!(counts.conflicts >= 20, "{counts:?}");
    assert!(counts.dead_lettered >= 20, "{counts:?}");
    assert!(counts.duplicates.redelivered > 0, "{counts:?}");
    assert!(counts.duplicates.republished > 0, "{counts:?}");
    stop([first, second]).await;
}
