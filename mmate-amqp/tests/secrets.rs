//! The password is nowhere to be read.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "rabbitmq/proxy.rs"]
mod proxy;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mmate_amqp::Amqp;
use mmate_core::TransportErrorKind;
use mmate_core::message::Message;
use mmate_core::transport::{
    Connection, Destination, Publication, QueueMode, QueuePlan, Transport,
};
use mmate_test_support::{RabbitMq, unique};

use crate::proxy::Proxy;

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    async fn until_it_says(&self, words: &str) {
        let begin = Instant::now();
        while !self.text().contains(words) {
            assert!(begin.elapsed() < Duration::from_secs(60), "nobody says {words:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

const PASSWORD: &str = "correct-horse";
const OTHER: &str = "battery-staple";

/// In no error, no `Debug` and no log, ours down to the finest level; neither when it is right nor
/// when it is wrong, nor when it was right once. And credentials that are refused on the way are
/// waited for: an operator may be about to change them.
#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_in_no_log_no_error_and_no_debug_text() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter("debug,mmate_amqp=trace,mmate_core=trace")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let server = tokio::task::spawn_blocking(|| RabbitMq::start().unwrap()).await.unwrap();
    let ctl = |arguments: &[&str]| tokio::task::block_in_place(|| server.ctl(arguments).unwrap());
    ctl(&["add_user", "alice", PASSWORD]);
    ctl(&["set_permissions", "alice", ".*", ".*", ".*"]);
    let proxy = Proxy::before(&server.url()).await;
    let url = |password: &str| proxy.url().replace("guest:guest", &format!("alice:{password}"));
    let broker = |password: &str| {
        let slow = Duration::from_millis(100);
        Amqp::new(url(password)).reconnect_backoff(slow, slow * 5)
    };
    let mut told = String::new();

    let wrong = broker(OTHER);
    let error = wrong.connect("tests").await.map(drop).unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::AccessRefused);
    write!(told, "{wrong:?} {error} {error:?} {}", wrong.describe()).unwrap();
    let malformed = Amqp::new(url(PASSWORD).replace("amqp://", "amqp:"));
    let error = malformed.connect("tests").await.map(drop).unwrap_err();
    write!(told, "{malformed:?} {error} {error:?} {}", malformed.describe()).unwrap();

    let right = broker(PASSWORD);
    let connection = right.connect("tests").await.unwrap();
    write!(told, "{right:?} {}", right.describe()).unwrap();
    let plan = QueuePlan::new(unique("secrets"), QueueMode::Shared);
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 1).await.unwrap();
    publish(&*connection, &plan).await;

    ctl(&["change_password", "alice", OTHER]);
    proxy.cut();
    log.until_it_says("the broker refuses the connection").await;
    ctl(&["change_password", "alice", PASSWORD]);
    publish(&*connection, &plan).await;
    for _ in 0..2 {
        let delivery = consumer.next().await.unwrap().unwrap();
        let _ = delivery.settle(mmate_core::transport::Settlement::Ack).await;
    }
    connection.close().await;
    #[cfg(feature = "tls")]
    let key = over_tls(&mut told).await;
    #[cfg(not(feature = "tls"))]
    let key = String::new();

    let logged = log.text();
    assert!(logged.contains("lost the connection to the broker"));
    assert!(logged.contains("127.0.0.1") && logged.contains("ACCESS_REFUSED"));
    let key = key.lines().filter(|line| !line.starts_with("---"));
    for secret in key.chain([PASSWORD, OTHER]) {
        let line = logged.lines().chain(told.lines()).find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

/// Connects with a client certificate, and fails to. Returns its key, of which no line may be told.
#[cfg(feature = "tls")]
async fn over_tls(told: &mut String) -> String {
    let authority = mmate_test_support::Authority::new("good");
    let listener = authority.strict_listener(authority.server("localhost"));
    let start = || RabbitMq::options().tls(listener).start().unwrap();
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let (client, other) = (authority.client("alice"), authority.client("other"));
    let with = |key: &str| {
        let tls = mmate_amqp::Tls::new().authority_pem(authority.pem());
        Amqp::new(server.tls_url()).tls(tls.client_certificate_pem(&*client.certificate, key))
    };
    let right = with(&client.key);
    let connection = right.connect("tests").await.unwrap();
    write!(told, "{right:?}").unwrap();
    connection.close().await;
    for unusable in [&other.key, &client.key.replace("PRIVATE", "ENCRYPTED PRIVATE")] {
        let wrong = with(unusable);
        let error = wrong.connect("tests").await.map(drop).unwrap_err();
        assert_eq!(error.kind(), TransportErrorKind::Configuration);
        write!(told, "{wrong:?} {error} {error:?}").unwrap();
    }
    client.key + &other.key
}

async fn publish(connection: &dyn Connection, plan: &QueuePlan) {
    let to = Destination::Queue(plan.name.clone());
    connection.publish(Publication::new(to, Message::new("any"))).await.unwrap();
}
