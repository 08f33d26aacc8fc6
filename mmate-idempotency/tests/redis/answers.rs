//! Answers that do not come.

use std::time::{Duration, Instant};

use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::StoreErrorKind;
use mmate_idempotency::{Permit, RedisStore, Store, Tracked};
use mmate_test_support::Redis;

use crate::house::{House, claim_when_it_answers, counts_when, ended, granted, request};
use crate::proxy::{Answers, Proxy};

/// A store whose answers can be cut, and its server.
async fn behind_a_proxy() -> (RedisStore, Proxy, Redis) {
    let redis = Redis::start().unwrap();
    let proxy = Proxy::to(redis.port());
    let store = RedisStore::connect(proxy.url()).await.unwrap();
    // From here on the server knows the script, and the first answer to a call is the last one.
    granted(&store, "before").await;
    (store.response_timeout(Duration::from_millis(500)), proxy, redis)
}

const LOST: [Answers; 2] = [Answers::CutOnce, Answers::SwallowOnce];

/// S45, F38
#[tokio::test]
async fn who_did_not_hear_that_his_claim_was_granted_recognises_it() {
    let (store, proxy, redis) = behind_a_proxy().await;
    let direct = RedisStore::connect(redis.url()).await.unwrap();
    for lost in LOST {
        let id = format!("{lost:?}");
        proxy.answers(lost);
        let mine = request(&id);
        let error = store.claim(&mine).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
        // It was applied.
        assert!(matches!(direct.claim(&request(&id)).await.unwrap(), Claim::Busy { .. }));
        let Claim::Granted(grant) = claim_when_it_answers(&store, &mine).await else {
            panic!("it is his own claim")
        };
        assert_eq!((grant.attempt, grant.taken_over), (1, false));
        assert!(matches!(direct.claim(&request(&id)).await.unwrap(), Claim::Busy { .. }));
        assert_eq!(store.complete(&Permit::new(&mine, grant), None).await.unwrap(), Held::Yes);
    }
}

/// S15, S45
#[tokio::test]
async fn who_did_not_hear_that_he_has_completed_or_given_back_is_told_so_again() {
    let (store, proxy, _redis) = behind_a_proxy().await;
    for lost in LOST {
        let permit = granted(&store, &format!("done {lost:?}")).await;
        proxy.answers(lost);
        let error = store.complete(&permit, None).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
        assert_eq!(store.complete(&permit, None).await.unwrap(), Held::Yes);
        assert_eq!(store.release(&permit).await.unwrap(), Held::Refused);

        let permit = granted(&store, &format!("given back {lost:?}")).await;
        proxy.answers(lost);
        store.release(&permit).await.unwrap_err();
        assert_eq!(store.release(&permit).await.unwrap(), Held::Yes);
    }
}

/// S45, F38: through a service.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_claims_and_completions_are_cut_runs_once() {
    let (store, proxy, _redis) = behind_a_proxy().await;
    let house = House::new();
    let running = house.start(Tracked::new(store), async || {}).await;
    for number in 0..40 {
        let lost = LOST[number % 2];
        proxy.answers(lost);
        house.publish(&running, &format!("{number}")).await;
        counts_when(&running, |counts| ended(counts) == number as u64 + 1).await;
        assert!(proxy.passes(), "the fault took place");
    }
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.retried), (40, 0), "{counts:?}");
    assert_eq!((house.effects().len(), house.doubles()), (40, 0));
    running.stop().await.unwrap();
}

/// A connection whose other end is gone without a word is given up.
#[tokio::test]
async fn after_a_silence_there_is_a_new_connection() {
    let (store, proxy, _redis) = behind_a_proxy().await;
    proxy.answers(Answers::Swallow);
    let began = Instant::now();
    let mine = request("a");
    store.claim(&mine).await.unwrap_err();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    let before = proxy.connections();
    proxy.answers(Answers::Pass);
    assert!(matches!(claim_when_it_answers(&store, &mine).await, Claim::Granted(_)));
    assert!(proxy.connections() > before);
}
