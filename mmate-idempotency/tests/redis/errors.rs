//! What a server's refusals mean.

use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::StoreErrorKind::{self, Permanent, Unavailable};
use mmate_idempotency::{RedisStore, Store};
use mmate_test_support::Redis;

use crate::house::{LEASE, claim_when_it_answers, granted, request};

/// After these commands, what is the kind of a claim's failure?
async fn kind_after(commands: &[&str]) -> (StoreErrorKind, String, RedisStore, Redis) {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    // The script is known from here on.
    granted(&store, "before").await;
    for command in commands {
        redis.ask(command).unwrap();
    }
    let answer = store.claim(&request("a")).await;
    let Err(error) = answer else { panic!("after {commands:?}: {answer:?}") };
    (error.kind(), error.to_string(), store, redis)
}

#[tokio::test]
async fn a_server_that_takes_nothing_now_is_not_available() {
    for (harm, mend, text) in [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS"),
    ] {
        let (kind, told, store, redis) = kind_after(&[harm]).await;
        assert_eq!(kind, Unavailable, "{harm}: {told}");
        assert!(told.to_uppercase().contains(text), "{harm}: {told}");
        redis.ask(mend).unwrap();
        let claim = claim_when_it_answers(&store, &request("a")).await;
        assert!(matches!(claim, Claim::Granted(_)), "nothing was changed, so it is granted now");
    }
}

/// What was begun is finished although the memory is full.
#[tokio::test]
async fn a_full_server_takes_nothing_new_and_loses_nothing_old() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let mut permits = Vec::new();
    for id in ["completed", "given back", "prolonged"] {
        permits.push(granted(&store, id).await);
    }
    redis.ask("CONFIG SET maxmemory 1").unwrap();
    let error = store.claim(&request("new")).await.unwrap_err();
    assert_eq!(error.kind(), Unavailable, "{error}");
    let reply = Some(vec![b'x'; 10_000].into());
    assert_eq!(store.complete(&permits[0], reply.clone()).await.unwrap(), Held::Yes);
    assert_eq!(store.release(&permits[1]).await.unwrap(), Held::Yes);
    assert_eq!(store.heartbeat(&permits[2], LEASE).await.unwrap(), Held::Yes);
    let Claim::Duplicate(seen) = store.claim(&request("completed")).await.unwrap() else {
        panic!("it is done")
    };
    assert_eq!(seen.reply, reply);
}

#[tokio::test]
async fn what_no_repetition_mends_is_permanent() {
    for commands in [
        // Somebody else's key.
        &["SET mmate:{}:5:scope:a text"][..],
        &["ACL SETUSER default -evalsha -eval"],
        &["ACL SETUSER default -hset"],
        &["ACL SETUSER default resetkeys ~other:*"],
    ] {
        let (kind, told, ..) = kind_after(commands).await;
        assert_eq!(kind, Permanent, "{commands:?}: {told}");
    }
}

/// The claims beside it are not harmed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_one_key_harms_no_other() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    redis.ask("SET mmate:{}:5:scope:7 text").unwrap();
    let mut all = tokio::task::JoinSet::new();
    for number in 0..50 {
        let store = store.clone();
        all.spawn(async move { (number, store.claim(&request(&format!("{number}"))).await) });
    }
    for (number, answer) in all.join_all().await {
        match answer {
            Ok(claim) => assert!(matches!(claim, Claim::Granted(_)), "{number}: {claim:?}"),
            Err(error) => assert_eq!((number, error.kind()), (7, Permanent), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_know_the_script_learns_it() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::connect(redis.url()).await.unwrap();
    for id in ["a", "b", "c"] {
        redis.ask("SCRIPT FLUSH").unwrap();
        granted(&store, id).await;
    }
}
