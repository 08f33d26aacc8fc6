//! Connecting, and being refused.

use std::time::{Duration, Instant};

use mmate_amqp::Amqp;
use mmate_core::TransportErrorKind;
use mmate_core::transport::Transport;
use mmate_test_support::{amqp_url, unique};

use crate::proxy::Proxy;
use crate::support::{
    PATIENCE, ack, broker, connect, ctl, event, id_of, next, plan, private_url, shared, until,
};

async fn refusal(url: &str) -> (TransportErrorKind, String) {
    let broker = broker(url);
    let connecting = tokio::time::timeout(PATIENCE, broker.connect("tests"));
    let error = connecting.await.expect("it is told at once").map(drop).unwrap_err();
    (error.kind(), error.to_string())
}

fn with_credentials(credentials: &str) -> String {
    amqp_url().replace("guest:guest", credentials)
}

#[tokio::test]
async fn an_unreachable_broker_is_tried_again_until_it_is_there() {
    let proxy = Proxy::before(&amqp_url()).await;
    proxy.refuse(true);
    let broker = broker(&proxy.url());
    let connecting = tokio::spawn(async move { broker.connect("tests").await.map(drop) });
    until("some attempts were made", async || (proxy.accepted() >= 4).then_some(())).await;
    assert!(!connecting.is_finished());
    proxy.refuse(false);
    tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_attempts_end_with_the_future_that_makes_them() {
    let proxy = Proxy::before(&amqp_url()).await;
    proxy.refuse(true);
    let broker = broker(&proxy.url());
    let wait = Duration::from_millis(300);
    assert!(tokio::time::timeout(wait, broker.connect("tests")).await.is_err());
    let attempts = proxy.accepted();
    assert!(attempts > 1);
    // Three times the longest delay between attempts.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(proxy.accepted() <= attempts + 1, "{} after {attempts}", proxy.accepted());
}

#[tokio::test]
async fn a_broker_that_accepts_and_says_nothing_is_given_up_and_tried_again() {
    let proxy = Proxy::before(&amqp_url()).await;
    proxy.hold_from_broker(true);
    let broker = broker(&proxy.url())
        .connect_timeout(Duration::from_millis(100))
        .answer_timeout(Duration::from_millis(200));
    let connecting = tokio::spawn(async move { broker.connect("tests").await.map(drop) });
    until("some attempts were made", async || (proxy.accepted() >= 3).then_some(())).await;
    assert!(!connecting.is_finished());
}

/// F28
#[tokio::test]
async fn wrong_credentials_are_told_at_once_and_without_the_password() {
    let begin = Instant::now();
    let (kind, text) = refusal(&with_credentials("guest:s3cret")).await;
    assert_eq!(kind, TransportErrorKind::AccessRefused, "{text}");
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert!(text.contains("ACCESS_REFUSED") && text.contains("127.0.0.1"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}

/// F28
#[tokio::test]
async fn a_missing_virtual_host_is_told_by_name() {
    let (kind, text) = refusal(&amqp_url().replace("%2f", "nowhere")).await;
    assert_eq!(kind, TransportErrorKind::AccessRefused, "{text}");
    assert!(text.contains("nowhere"), "{text}");
    let (kind, text) = refusal(&amqp_url().replace("%2f", "")).await;
    assert_eq!(kind, TransportErrorKind::AccessRefused, "{text}");
    assert!(text.contains("the default virtual host is %2f"), "{text}");
}

/// F55: it comes with the code of a refusal, and passes all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_connections_is_waited_for() {
    let user = unique("limited");
    ctl(&["add_user", &user, "secret"]);
    ctl(&["set_permissions", &user, ".*", ".*", ".*"]);
    ctl(&["set_user_limits", &user, "{\"max-connections\": 0}"]);
    let proxy =
        Proxy::before(&private_url().replace("guest:guest", &format!("{user}:secret"))).await;
    let broker = broker(&proxy.url());
    let connecting = tokio::spawn(async move { broker.connect("tests").await.map(drop) });
    until("some attempts were made", async || (proxy.accepted() >= 3).then_some(())).await;
    assert!(!connecting.is_finished());
    ctl(&["clear_user_limits", &user, "all"]);
    tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_unusable_url_or_setting_is_told_before_anything_is_sent() {
    for url in ["", "localhost", "redis://localhost", "amqp://a,,b", "amqp://h:x/"] {
        let (kind, text) = refusal(url).await;
        assert_eq!(kind, TransportErrorKind::Configuration, "{url}: {text}");
    }
    let connecting = shared().publish_window(0).connect("tests").await;
    let error = connecting.map(drop).unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Configuration);
    assert!(error.to_string().contains("publish window"), "{error}");
}

#[test]
fn neither_debug_nor_describe_show_credentials() {
    let broker = Amqp::new("amqp://alice:s3cret@broker.example/prod");
    assert_eq!(broker.describe(), "amqp://broker.example:5672/prod");
    let debug = format!("{broker:?} {:?}", Amqp::new("alice:s3cret@broker"));
    assert!(debug.contains("broker.example") && !debug.contains("s3cret"), "{debug}");
}

/// Where nobody consumes, one connection is enough; and what is dropped is gone.
#[tokio::test]
async fn what_is_dropped_without_being_closed_leaves_nothing_behind() {
    let proxy = Proxy::before(&amqp_url()).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let connection = connect(broker(&proxy.url())).await;
    assert_eq!(proxy.accepted(), 1);
    let plan = plan("dropped");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    connection.publish(event(&plan, "1")).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(proxy.accepted(), 2);
    // The delivery alone keeps its channel, so that it can be settled.
    drop((connection, consumer));
    ack(delivery).await;
    until("all tasks have ended", async || (tasks() <= before).then_some(())).await;
    assert_eq!(proxy.accepted(), 2, "nothing connects any more");
}

#[tokio::test]
async fn an_unsettled_delivery_comes_back_when_everything_was_dropped() {
    let first = connect(shared()).await;
    let plan = plan("unsettled");
    first.declare(&plan).await.unwrap();
    first.publish(event(&plan, "1")).await.unwrap();
    let mut consumer = first.consume(&plan, 10).await.unwrap();
    let delivery = next(&mut consumer).await;
    drop((first, consumer, delivery));
    let second = connect(shared()).await;
    let again = next(&mut second.consume(&plan, 10).await.unwrap()).await;
    assert_eq!((id_of(&again).as_str(), again.redelivered), ("1", true));
}

/// A caller that gives up in the middle of something leaves the connection as it was.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_given_up_in_the_middle_harm_no_connection() {
    let proxy = Proxy::before(&amqp_url()).await;
    let connection = connect(broker(&proxy.url())).await;
    let plan = plan("given-up");
    connection.declare(&plan).await.unwrap();
    for micros in (0..6_000).step_by(60) {
        let limit = Duration::from_micros(micros);
        let _ = tokio::time::timeout(limit, connection.declare(&plan)).await;
        let _ = tokio::time::timeout(limit, connection.publish(event(&plan, "some"))).await;
        let consuming = tokio::time::timeout(limit, connection.consume(&plan, 1)).await;
        drop(consuming);
    }
    connection.publish(event(&plan, "last")).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    loop {
        let delivery = next(&mut consumer).await;
        let id = id_of(&delivery);
        ack(delivery).await;
        if id == "last" {
            break;
        }
    }
    assert_eq!(proxy.accepted(), 2, "no connection was lost");
}
