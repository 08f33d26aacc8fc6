//! Several addresses of one broker, and giving up.

use std::time::{Duration, Instant};

use mmate_core::transport::{PublishError, Transport};
use mmate_core::{HandlerError, Service, Subscription, TransportErrorKind as Kind};
use mmate_test_support::{amqp_url, unique};

use crate::proxy::Proxy;
use crate::support::{PATIENCE, broker, connect, event, plan, until};

/// One URL for all of these.
fn url_of(proxies: &[&Proxy]) -> String {
    let authority = |proxy: &Proxy| {
        let url = proxy.url();
        let (_, rest) = url.split_once('@').unwrap();
        rest.split('/').next().unwrap().to_owned()
    };
    let hosts: Vec<_> = proxies.iter().map(|proxy| authority(proxy)).collect();
    format!("amqp://guest:guest@{}/%2f", hosts.join(","))
}

#[tokio::test]
async fn any_node_that_takes_us_will_do_and_the_next_is_tried_at_once() {
    let (gone, there) = (Proxy::before(&amqp_url()).await, Proxy::before(&amqp_url()).await);
    gone.refuse(true);
    // A pause after each node would show.
    let long = Duration::from_secs(30);
    let broker = broker(&url_of(&[&gone, &there])).reconnect_backoff(long, long);
    assert!(!broker.describe().contains("guest"));
    assert_eq!(broker.describe().matches("127.0.0.1").count(), 2);
    let begin = Instant::now();
    // Until the one that is gone was the first to be tried.
    while gone.accepted() == 0 {
        connect(broker.clone()).await.close().await;
    }
    assert!(begin.elapsed() < long / 2, "{:?}", begin.elapsed());
    assert!(there.accepted() > 0);
}

#[tokio::test]
async fn nodes_are_chosen_at_random_so_that_services_spread_over_them() {
    let (one, two) = (Proxy::before(&amqp_url()).await, Proxy::before(&amqp_url()).await);
    let broker = broker(&url_of(&[&one, &two]));
    let mut connections = Vec::new();
    // Always the same one: once in a billion.
    for _ in 0..30 {
        connections.push(connect(broker.clone()).await);
    }
    assert!(one.accepted() > 0 && two.accepted() > 0);
    assert_eq!(one.accepted() + two.accepted(), 30);
}

/// F28: a node may not know us yet; only what all say is final.
#[tokio::test]
async fn a_refusal_by_one_node_ends_the_first_connect_only_if_no_other_takes_us() {
    let there = Proxy::before(&amqp_url()).await;
    let silent = Proxy::before(&amqp_url()).await;
    silent.refuse(true);
    let url = url_of(&[&there, &silent]).replace("guest:guest", "guest:s3cret");
    let broker = broker(&url);
    let connecting = tokio::time::timeout(PATIENCE, broker.connect("tests"));
    let error = connecting.await.expect("it is told at once").map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::AccessRefused, "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

/// A node that hangs takes the whole time for an answer; the others come first.
#[tokio::test]
async fn a_lost_connection_comes_back_on_another_node_first() {
    let proxies = [Proxy::before(&amqp_url()).await, Proxy::before(&amqp_url()).await];
    let long = Duration::from_secs(30);
    let broker = broker(&url_of(&[&proxies[0], &proxies[1]])).answer_timeout(long);
    let connection = connect(broker.publish_timeout(long)).await;
    let mut with = usize::from(proxies[1].accepted() == 1);
    let plan = plan("moving");
    for _ in 0..10 {
        let (lost, other) = (&proxies[with], &proxies[1 - with]);
        let before = other.accepted();
        lost.hold_all(true);
        lost.cut();
        let begin = Instant::now();
        let mut message = event(&plan, "any");
        message.mandatory = false;
        connection.publish(message).await.unwrap();
        assert!(begin.elapsed() < long / 2, "{:?}", begin.elapsed());
        assert_eq!(other.accepted(), before + 1);
        lost.hold_all(false);
        with = 1 - with;
    }
}

#[tokio::test]
async fn a_first_connect_is_given_up_after_the_time_for_it() {
    let proxy = Proxy::before(&amqp_url()).await;
    proxy.refuse(true);
    let limit = Duration::from_millis(700);
    let broker = broker(&proxy.url()).give_up_after(limit);
    let begin = Instant::now();
    let connecting = tokio::time::timeout(PATIENCE, broker.connect("tests"));
    let error = connecting.await.expect("it is given up").map(drop).unwrap_err();
    assert!(begin.elapsed() >= limit);
    assert_eq!(error.kind(), Kind::Unreachable);
    let text = error.to_string();
    assert!(text.contains("given up after 700ms") && text.contains("the last attempt"), "{text}");
    assert!(proxy.accepted() > 1, "it was tried more than once");
}

/// Until the time is over it is as without a limit; then the service ends, and says why.
#[tokio::test]
async fn a_service_ends_with_an_error_when_its_broker_stays_away_for_too_long() {
    async fn ignore() -> Result<(), HandlerError> {
        Ok(())
    }
    let proxy = Proxy::before(&amqp_url()).await;
    let name = unique("given-up");
    let limit = Duration::from_secs(2);
    let mut running = Service::new(name.as_str())
        .subscribe(Subscription::per_service("s", [format!("{name}.#")]).handler(ignore))
        .start(broker(&proxy.url()).give_up_after(limit))
        .await
        .unwrap();
    let before = proxy.accepted();
    proxy.cut();
    until("both connections are back", async || (proxy.accepted() >= before + 2).then_some(()))
        .await;
    proxy.refuse(true);
    proxy.cut();
    let begin = Instant::now();
    tokio::time::timeout(PATIENCE, running.failed()).await.expect("it ends");
    let error = running.stop().await.unwrap_err();
    assert!(begin.elapsed() >= limit - Duration::from_millis(100), "{:?}", begin.elapsed());
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        text += &format!("{error}: ");
        cause = error.source();
    }
    assert!(text.contains("given up after 2s without a connection"), "{text}");
    proxy.has_accepted_all().await;
    let attempts = proxy.accepted();
    // Three times the longest delay between attempts.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(proxy.accepted(), attempts, "nobody tries any more");
}

#[tokio::test]
async fn who_publishes_is_told_that_the_broker_is_given_up() {
    let proxy = Proxy::before(&amqp_url()).await;
    let connection = connect(broker(&proxy.url()).give_up_after(Duration::from_secs(1))).await;
    let plan = plan("given-up");
    connection.declare(&plan).await.unwrap();
    proxy.refuse(true);
    proxy.cut();
    for _ in 0..2 {
        let publishing = connection.publish(event(&plan, "1"));
        let told = tokio::time::timeout(Duration::from_secs(20), publishing).await;
        let Err(PublishError::Ambiguous { reason, .. }) = told.expect("it is told in time") else {
            panic!("not ambiguous")
        };
        assert!(reason.contains("given up after 1s"), "{reason}");
    }
    let error = connection.declare(&plan).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error}");
    tokio::time::timeout(PATIENCE, connection.close()).await.expect("it can be closed");
}
