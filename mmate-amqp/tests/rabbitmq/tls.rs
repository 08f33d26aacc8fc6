//! Connecting over TLS, and being refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mmate_amqp::{Amqp, Tls};
use mmate_core::TransportErrorKind as Kind;
use mmate_core::transport::{Connection, Transport};
use mmate_test_support::{Authority, Pair, RabbitMq, amqp_url};

use crate::proxy::Proxy;
use crate::support::{
    PATIENCE, ack, blocking, broker, connect, event, id_of, next, plan, publish_all, until,
};

fn secure(url: &str, tls: Tls) -> Amqp {
    broker(url).tls(tls)
}

/// The error of a connect that must not be tried again.
async fn refusal(broker: Amqp) -> (Kind, String) {
    let connecting = tokio::time::timeout(PATIENCE, broker.connect("tests"));
    let error = connecting.await.expect("it is told at once").map(drop).unwrap_err();
    (error.kind(), error.to_string())
}

/// Publishes so many and takes them all.
async fn round_trip(connection: Box<dyn Connection>, count: u32) {
    let connection: Arc<dyn Connection> = connection.into();
    let plan = plan("secure");
    connection.declare(&plan).await.unwrap();
    publish_all(&connection, &plan, 0..count).await;
    let mut consumer = connection.consume(&plan, 50).await.unwrap();
    for _ in 0..count {
        ack(next(&mut consumer).await).await;
    }
    connection.close().await;
}

/// F56
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_certificate_verifies_is_spoken_to_over_tls() {
    let authority = Authority::new("good");
    let listener = authority.listener(authority.server("localhost"));
    let mut server = blocking(|| RabbitMq::options().tls(listener).start().unwrap()).await;
    let trusting = || Tls::new().authority_pem(authority.pem());
    let connection = connect(secure(&server.tls_url(), trusting())).await;
    let protocols = server.ctl(&["list_connections", "ssl", "ssl_protocol"]).unwrap();
    assert!(protocols.contains("true\ttlsv1."), "{protocols}");
    round_trip(connection, 2_000).await;

    // It comes back like one in clear text.
    let connection = connect(secure(&server.tls_url(), trusting())).await;
    let plan = plan("killed");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    // A broker that is killed forgets what it was told within the last second or so.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        connection.publish(event(&plan, "before")).await.unwrap();
        ack(next(&mut consumer).await).await;
    }
    server.kill();
    let _server = blocking(move || {
        server.start_again().unwrap();
        server
    })
    .await;
    connection.publish(event(&plan, "after")).await.unwrap();
    // Acknowledgements are lost with the connection: those before may be shown again.
    loop {
        let delivery = next(&mut consumer).await;
        let is_after = id_of(&delivery) == "after";
        ack(delivery).await;
        if is_after {
            break;
        }
    }
    connection.close().await;
}

/// F56: the four ways in which a certificate can be wrong, each told with the host and the reason.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_certificate_does_not_verify_is_refused_at_once() {
    let authority = Authority::new("good");
    let other = Authority::new("other");
    let listener = authority.listener(authority.server("localhost"));
    let server = blocking(|| RabbitMq::options().tls(listener).start().unwrap()).await;
    let url = server.tls_url();
    let trusting = || Tls::new().authority_pem(authority.pem());
    let begin = Instant::now();

    let (kind, text) = refusal(secure(&url, Tls::new().authority_pem(other.pem()))).await;
    assert_eq!(kind, Kind::Untrusted, "{text}");
    assert!(text.contains("localhost") && text.contains("no authority that is trusted"), "{text}");

    // Without a word about TLS the system's authorities are trusted, of which ours is none.
    let (kind, text) = refusal(broker(&url)).await;
    assert_eq!(kind, Kind::Untrusted, "{text}");

    let by_address = url.replace("localhost", "127.0.0.1");
    let (kind, text) = refusal(secure(&by_address, trusting())).await;
    assert_eq!(kind, Kind::Untrusted, "{text}");
    assert!(text.contains("127.0.0.1") && text.contains("not valid for name"), "{text}");
    // Unless the name is given.
    round_trip(connect(secure(&by_address, trusting().server_name("localhost"))).await, 1).await;

    let expired = authority.expired_server("localhost");
    tokio::task::block_in_place(|| {
        server.show_certificate(&expired.certificate, &expired.key).unwrap();
    });
    let (kind, text) = refusal(secure(&url, trusting())).await;
    assert_eq!(kind, Kind::Untrusted, "{text}");
    assert!(text.contains("localhost") && text.contains("expired"), "{text}");
    assert!(!text.contains("guest"), "{text}");
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
}

/// F56: who was connected once keeps trying, since a certificate is renewed by somebody.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_under_a_running_service_is_waited_for() {
    let authority = Authority::new("good");
    let listener = authority.listener(authority.server("localhost"));
    let server = blocking(|| RabbitMq::options().tls(listener).start().unwrap()).await;
    let proxy = Proxy::before(&server.tls_url()).await;
    let tls = Tls::new().authority_pem(authority.pem()).server_name("localhost");
    let connection = connect(secure(&proxy.url(), tls)).await;
    let plan = plan("expiring");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();

    let show = |pair: &Pair| {
        tokio::task::block_in_place(|| server.show_certificate(&pair.certificate, &pair.key))
            .unwrap();
    };
    show(&authority.expired_server("localhost"));
    let before = proxy.accepted();
    proxy.cut();
    let tried = || (proxy.accepted() >= before + 6).then_some(());
    until("some attempts were made", async || tried()).await;
    show(&authority.server("localhost"));
    connection.publish(event(&plan, "after")).await.unwrap();
    assert_eq!(id_of(&next(&mut consumer).await), "after");
}

/// F56
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_to_a_broker_that_wants_one() {
    let authority = Authority::new("good");
    let other = Authority::new("other");
    let listener = authority.strict_listener(authority.server("localhost"));
    let server = blocking(|| {
        let options = RabbitMq::options().tls(listener).plugin("rabbitmq_auth_mechanism_ssl");
        let login = "auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\n\
                     ssl_cert_login_from = common_name";
        options.config(login).start().unwrap()
    })
    .await;
    let url = server.tls_url();
    let with = |pair: &Pair| {
        Tls::new()
            .authority_pem(authority.pem())
            .client_certificate_pem(pair.certificate.as_str(), pair.key.as_str())
    };
    let client = authority.client("alice");
    round_trip(connect(secure(&url, with(&client))).await, 100).await;

    let (kind, text) = refusal(secure(&url, Tls::new().authority_pem(authority.pem()))).await;
    assert_eq!(kind, Kind::AccessRefused, "{text}");
    assert!(text.contains("localhost") && text.contains("wants a client certificate"), "{text}");

    let (kind, text) = refusal(secure(&url, with(&other.client("alice")))).await;
    assert_eq!(kind, Kind::AccessRefused, "{text}");
    assert!(text.contains("does not accept the client certificate"), "{text}");

    // And it says who we are, if the broker wants to know it from nothing else.
    let external = url.replace("guest:guest@", "") + "?auth_mechanism=external";
    let (kind, text) = refusal(secure(&external, with(&client))).await;
    assert_eq!(kind, Kind::AccessRefused, "{text}");
    tokio::task::block_in_place(|| {
        server.ctl(&["add_user", "alice", "unused"]).unwrap();
        server.ctl(&["set_permissions", "alice", ".*", ".*", ".*"]).unwrap();
    });
    round_trip(connect(secure(&external, with(&client))).await, 1).await;
}

/// F56: TLS 1.2 is what older installations speak, where the broker ends the handshake itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_over_tls_1_2_too() {
    let authority = Authority::new("good");
    let listener = authority.strict_listener(authority.server("localhost"));
    let server = blocking(|| {
        let options = RabbitMq::options().tls(listener);
        options.config("ssl_options.versions.1 = tlsv1.2").start().unwrap()
    })
    .await;
    let url = server.tls_url();
    let Pair { certificate, key } = authority.client("alice");
    let trusting = || Tls::new().authority_pem(authority.pem());
    let good = trusting().client_certificate_pem(certificate, key);
    let connection = connect(secure(&url, good)).await;
    let protocols =
        tokio::task::block_in_place(|| server.ctl(&["list_connections", "ssl_protocol"]));
    assert!(protocols.unwrap().contains("tlsv1.2"));
    round_trip(connection, 100).await;

    let (kind, text) = refusal(secure(&url, trusting())).await;
    assert_eq!(kind, Kind::AccessRefused, "{text}");
    assert!(text.contains("may want a client certificate"), "{text}");
    let Pair { certificate, key } = Authority::new("other").client("alice");
    let wrong = trusting().client_certificate_pem(certificate, key);
    let (kind, text) = refusal(secure(&url, wrong)).await;
    assert_eq!(kind, Kind::AccessRefused, "{text}");
}

/// F56
#[tokio::test(flavor = "multi_thread")]
async fn tls_and_clear_text_are_told_apart_on_the_wrong_port() {
    let authority = Authority::new("good");
    let listener = authority.listener(authority.server("localhost"));
    let server = blocking(|| RabbitMq::options().tls(listener).start().unwrap()).await;

    let to_clear = amqp_url().replace("amqp://", "amqps://");
    let (kind, text) = refusal(broker(&to_clear)).await;
    assert_eq!(kind, Kind::Configuration, "{text}");
    assert!(text.contains("does not speak TLS on this port"), "{text}");

    let to_secure = server.tls_url().replace("amqps://", "amqp://");
    let (kind, text) = refusal(broker(&to_secure)).await;
    assert_eq!(kind, Kind::Configuration, "{text}");
    assert!(text.contains("speaks TLS on this port: use amqps://"), "{text}");
}

#[tokio::test]
async fn a_handshake_that_is_not_answered_is_given_up_and_tried_again() {
    let proxy = Proxy::before(&amqp_url()).await;
    proxy.hold_all(true);
    let url = proxy.url().replace("amqp://", "amqps://");
    let broker = broker(&url)
        .connect_timeout(Duration::from_millis(100))
        .answer_timeout(Duration::from_secs(600));
    let connecting = tokio::spawn(async move { broker.connect("tests").await.map(drop) });
    until("some attempts were made", async || (proxy.accepted() >= 3).then_some(())).await;
    assert!(!connecting.is_finished());
}

#[tokio::test]
async fn what_cannot_be_used_for_tls_is_told_with_its_file_before_anything_is_sent() {
    let authority = Authority::new("good");
    let (ours, others) = (authority.client("ours"), authority.client("others"));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let certificate = file("ours.pem", &ours.certificate);
    let key = file("ours.key", &ours.key);
    let encrypted = ours.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let missing = folder.path().join("missing.pem");
    let garbled = ours.certificate.replacen("MII", "AAA", 1);
    let tls = Tls::new;
    for (tls, complaints) in [
        (tls().authority_file(&missing), ["missing.pem", "No such file"]),
        (tls().authority_file(file("empty.pem", "")), ["empty.pem", "no certificate in it"]),
        (tls().authority_file(&key), ["ours.key", "no certificate in it"]),
        (tls().authority_file(file("garbled.pem", &garbled)), ["garbled.pem", "cannot be used"]),
        (tls().authority_pem("what?"), ["given as text", "no certificate in it"]),
        (tls().client_certificate_files(&missing, &key), ["missing.pem", "client certificate"]),
        (tls().client_certificate_files(&certificate, &missing), ["missing.pem", "client key"]),
        (
            tls().client_certificate_files(&certificate, &certificate),
            ["ours.pem", "no private key in it"],
        ),
        (
            tls().client_certificate_files(&certificate, file("locked.key", &encrypted)),
            ["locked.key", "it is encrypted"],
        ),
        (
            tls().client_certificate_files(&certificate, file("others.key", &others.key)),
            ["others.key", "do not fit together"],
        ),
        (tls().server_name("two words"), ["two words", "server name"]),
    ] {
        let shown = format!("{tls:?}");
        let (kind, text) = refusal(secure("amqps://localhost:1", tls)).await;
        assert_eq!(kind, Kind::Configuration, "{text}");
        assert!(complaints.iter().all(|complaint| text.contains(complaint)), "{text}");
        for secret in [&ours.key, &others.key].into_iter().flat_map(|key| key.lines().nth(1)) {
            assert!(!text.contains(secret) && !shown.contains(secret), "{text} {shown}");
        }
    }
    let (kind, text) = refusal(secure("amqp://localhost:1", tls())).await;
    assert_eq!(kind, Kind::Configuration, "{text}");
    assert!(text.contains("write amqps://"), "{text}");
}

/// A certificate that is renewed under a running service is shown at the next connect.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_again_for_each_connection_and_kept_while_they_cannot_be_used() {
    let authority = Authority::new("good");
    let listener = authority.strict_listener(authority.server("localhost"));
    let server = blocking(|| RabbitMq::options().tls(listener).start().unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("c.key"));
    let write = |pair: &Pair| {
        std::fs::write(&certificate, &pair.certificate).unwrap();
        std::fs::write(&key, &pair.key).unwrap();
    };
    write(&authority.client("first"));
    let proxy = Proxy::before(&server.tls_url()).await;
    let tls = Tls::new()
        .authority_pem(authority.pem())
        .client_certificate_files(&certificate, &key)
        .server_name("localhost");
    let connection = connect(secure(&proxy.url(), tls)).await;
    let plan = plan("renewed");
    connection.declare(&plan).await.unwrap();
    let shown = async |name: &str| {
        until(&format!("{name} is shown"), async || {
            let shown = tokio::task::block_in_place(|| {
                server.ctl(&["list_connections", "peer_cert_subject"]).unwrap()
            });
            let subjects: Vec<_> = shown.lines().filter(|line| line.contains("CN=")).collect();
            (subjects.len() == 2 && subjects.iter().all(|subject| subject.contains(name)))
                .then_some(())
        })
        .await;
    };
    shown("first").await;
    std::fs::write(&key, "half a ke").unwrap();
    proxy.cut();
    connection.publish(event(&plan, "1")).await.unwrap();
    shown("first").await;
    write(&authority.client("second"));
    proxy.cut();
    connection.publish(event(&plan, "2")).await.unwrap();
    shown("second").await;
}
