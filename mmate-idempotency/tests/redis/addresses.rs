//! Where Redis is, and what is told of it.

use mmate_idempotency::store::StoreErrorKind;
use mmate_idempotency::{RedisStore, Store};
use mmate_test_support::{Redis, RedisSentinel};

use crate::house::done;

#[tokio::test]
async fn what_is_no_address_is_refused_at_once() {
    for url in
        ["", "127.0.0.1", "amqp://127.0.0.1/", "redis://127.0.0.1/name", "rediss://host/#insecure"]
    {
        let error = RedisStore::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Permanent, "{url:?}: {error}");
        assert!(error.to_string().starts_with("failed to use the address of Redis: "), "{error}");
    }
    for error in [
        RedisStore::cluster([""; 0]).await.unwrap_err(),
        RedisStore::sentinel("name", [""; 0]).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("there is no address"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_may_come_later() {
    let port = mmate_test_support::Port::reserve().unwrap();
    let url = format!("redis://127.0.0.1:{}/", port.number());
    for error in [
        RedisStore::connect(&url).await.unwrap_err(),
        RedisStore::cluster([&url]).await.unwrap_err(),
        RedisStore::sentinel("name", [&url]).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
        assert!(error.to_string().starts_with("failed to reach Redis: "), "{error}");
    }
}

/// A password and a user of this name appear nowhere.
const SECRET: &str = "hunter2-and-more";

#[tokio::test]
async fn a_password_is_used_and_never_told() {
    let redis = Redis::start().unwrap();
    redis.ask(&format!("ACL SETUSER {SECRET} on >{SECRET} ~* &* +@all")).unwrap();
    redis.ask("ACL SETUSER default off").unwrap();
    let url = format!("redis://{SECRET}:{SECRET}@127.0.0.1:{}/3", redis.port());
    let store = RedisStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    done(&store, "a").await;
    let shown = format!("{store:?}");
    assert!(shown.contains(&format!("127.0.0.1:{}", redis.port())), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");

    let wrong = [
        url.replace(":hunter2", ":wrong-hunter2"),
        format!("redis://:hunter2-wrong@127.0.0.1:{}/", redis.port()),
        "redis://hunter2:hunter2@127.0.0.1:notaport/".to_owned(),
        "redis://hunter2:hunter2@127.0.0.1:1/".to_owned(),
        "redis://hunter2:hunter2@host.invalid/".to_owned(),
    ];
    for url in wrong {
        let error = RedisStore::connect(&url).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let without = format!("redis://127.0.0.1:{}/", redis.port());
    match RedisStore::connect(&without).await {
        Err(error) => assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}"),
        Ok(store) => {
            let error = store.migrate().await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
        }
    }
}

#[tokio::test]
async fn a_master_that_the_sentinels_do_not_know_is_told() {
    let redis = RedisSentinel::start(1).unwrap();
    let error = RedisStore::sentinel("nobody", redis.urls()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    assert!(error.to_string().to_lowercase().contains("master"), "{error}");
}
