//! TLS between us and Redis.

use std::fs;
use std::time::Duration;

use mmate_idempotency::store::StoreErrorKind;
use mmate_idempotency::{RedisStore, RedisTls, Store, StoreError};
use mmate_test_support::{Authority, Pair, Port, Redis};
use tempfile::TempDir;

use crate::house::done;

/// A server that speaks TLS on a port beside its plain one.
struct Secure {
    redis: Redis,
    url: String,
    #[expect(dead_code, reason = "the server reads its certificates there")]
    folder: TempDir,
}

impl Secure {
    /// It shows this certificate, and asks clients for one of `authority` if it is `strict`.
    fn start(authority: &Authority, shown: &Pair, strict: bool) -> Self {
        Self::with("", authority, shown, strict)
    }

    fn with(config: &str, authority: &Authority, shown: &Pair, strict: bool) -> Self {
        let (folder, port) = (TempDir::new().unwrap(), Port::reserve().unwrap());
        let number = port.number();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let config = format!(
            "{config}tls-port {number}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients {}",
            file("server.pem", &shown.certificate),
            file("server.key", &shown.key),
            file("ca.pem", &authority.pem()),
            if strict { "yes" } else { "no" },
        );
        drop(port);
        let redis = Redis::options().config(&config).start().unwrap();
        Self { redis, url: format!("rediss://localhost:{number}/"), folder }
    }
}

async fn refusal(tls: RedisTls, url: &str) -> StoreError {
    tls.connect(url).await.unwrap_err()
}

/// F56 for Redis: records go through a connection that is verified, on both sides if the server asks for that.
#[tokio::test]
async fn records_are_kept_over_a_verified_connection() {
    let authority = Authority::new("ours");
    let secure = Secure::start(&authority, &authority.server("localhost"), true);
    let Pair { certificate, key } = authority.client("shop");
    let tls = RedisTls::new().authority_pem(authority.pem());
    let store = tls.clone().client_certificate_pem(certificate, key.clone());
    assert!(!format!("{store:?}").contains("BEGIN"), "{store:?}");
    let store = store.connect(&secure.url).await.unwrap();
    store.migrate().await.unwrap();
    done(&store, "a").await;
    let shown = format!("{store:?}");
    assert!(!shown.contains("BEGIN") && !shown.contains(&key), "{shown}");

    // With TLS 1.3 a missing certificate is told with the first answer.
    let error = match tls.connect(&secure.url).await {
        Err(error) => error,
        Ok(store) => store.migrate().await.unwrap_err(),
    };
    assert!(error.to_string().contains("ertificate"), "{error}");
}

/// The nodes of a cluster, which name each other, are spoken with in the same way.
#[tokio::test]
async fn a_cluster_is_reached_over_tls() {
    let authority = Authority::new("ours");
    let bus = Port::reserve().unwrap();
    let config = format!("cluster-enabled yes\ntls-cluster yes\ncluster-port {}\n", bus.number());
    drop(bus);
    let node = Secure::with(&config, &authority, &authority.server("127.0.0.1"), false);
    node.redis.ask("CLUSTER ADDSLOTSRANGE 0 16383").unwrap();
    let is_ready = || node.redis.ask("CLUSTER INFO").unwrap().contains("cluster_state:ok");
    tokio::time::timeout(Duration::from_secs(20), async {
        while !is_ready() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    let url = node.url.replace("localhost", "127.0.0.1");
    let tls = RedisTls::new().authority_pem(authority.pem());
    let store = tls.cluster([&url]).await.unwrap();
    store.migrate().await.unwrap();
    for id in ["a", "b", "c"] {
        done(&store, id).await;
    }
    RedisTls::new().cluster([&url]).await.unwrap_err();
}

/// F56
#[tokio::test]
async fn who_cannot_be_verified_is_refused() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let trusting = || RedisTls::new().authority_pem(ours.pem());
    let good = Secure::start(&ours, &ours.server("localhost"), false);
    trusting().connect(&good.url).await.unwrap();
    let of_stranger = Secure::start(&theirs, &theirs.server("localhost"), false);
    let of_other_host = Secure::start(&ours, &ours.server("elsewhere.example"), false);
    let expired = Secure::start(&ours, &ours.expired_server("localhost"), false);
    for (what, error) in [
        ("a stranger's", refusal(trusting(), &of_stranger.url).await),
        ("another host's", refusal(trusting(), &of_other_host.url).await),
        ("an old one", refusal(trusting(), &expired.url).await),
        ("one that the system knows nothing of", refusal(RedisTls::new(), &good.url).await),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Permanent, "{what}: {error}");
        assert!(error.to_string().contains("certificate"), "{what}: {error}");
    }
    let error = RedisStore::connect(&good.url).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
}

#[tokio::test]
async fn what_cannot_work_is_told_before_anybody_is_asked() {
    let tls = || RedisTls::new().authority_pem(Authority::new("ours").pem());
    let broken = RedisTls::new().client_certificate_pem("no certificate", "no key");
    for (error, part) in [
        (refusal(tls(), "redis://localhost/").await, "say rediss:// instead of redis://"),
        (refusal(tls(), "rediss://localhost/#insecure").await, "#insecure cannot be"),
        (refusal(broken, "rediss://localhost/").await, "key"),
        (
            tls().cluster(["rediss://localhost/", "redis://localhost/"]).await.unwrap_err(),
            "say rediss://",
        ),
        (
            RedisStore::cluster(["rediss://localhost/", "redis://localhost/"]).await.unwrap_err(),
            "some addresses are with TLS",
        ),
    ] {
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
    }
}
