//! Queues and exchanges that we may not use, or that others have made in their way.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use mmate_amqp::Amqp;
use mmate_core::transport::{Declare, QueueKind};
use mmate_core::{PublishError, TransportErrorKind};
use mmate_test_support::{amqp_url, unique};

use crate::proxy::Proxy;
use crate::support::{
    Stranger, ack, broker, connect, ctl, event, id_of, next, plan, private_url, shared,
};

/// A user with these permissions to configure, write and read, at this broker.
fn user(url: &str, permissions: [&str; 3]) -> Amqp {
    let user = unique("user");
    ctl(&["add_user", &user, "secret"]);
    ctl(&["set_permissions", &user, permissions[0], permissions[1], permissions[2]]);
    broker(&url.replace("guest:guest", &format!("{user}:secret")))
}

/// F28
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_a_queue_is_told_so_when_consuming() {
    let url = private_url();
    let plan = plan("unreadable");
    connect(broker(&url)).await.declare(&plan).await.unwrap();
    let limited = connect(user(&url, [".*", ".*", "^$"])).await;
    let mut theirs = plan.clone();
    theirs.declare = Declare::LeaveAlone;
    let error = limited.consume(&theirs, 1).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Forbidden, "{error}");
    for part in [plan.name.as_str(), "read permission"] {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
}

/// F28
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_to_an_exchange_is_told_so_when_publishing() {
    let url = private_url();
    let plan = plan("unwritable");
    connect(broker(&url)).await.declare(&plan).await.unwrap();
    let limited = connect(user(&url, [".*", "^$", ".*"])).await;
    let error = limited.publish(event(&plan, "1")).await.unwrap_err();
    assert!(matches!(error, PublishError::Refused { .. }), "{error}");
    for part in ["mmate.events", "ACCESS_REFUSED"] {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }
}

/// F28: it is told once, and not tried for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_permission_that_is_taken_away_ends_the_consumer_without_a_hot_loop() {
    let url = private_url();
    let plan = plan("revoked");
    connect(broker(&url)).await.declare(&plan).await.unwrap();
    let name = unique("user");
    ctl(&["add_user", &name, "secret"]);
    ctl(&["set_permissions", &name, ".*", ".*", ".*"]);
    let proxy = Proxy::before(&url.replace("guest:guest", &format!("{name}:secret"))).await;
    let connection = connect(broker(&proxy.url())).await;
    let mut consumer = connection.consume(&plan, 1).await.unwrap();
    ctl(&["set_permissions", &name, "^$", "^$", "^$"]);
    let before = proxy.accepted();
    proxy.cut();
    let ended = tokio::time::timeout(Duration::from_secs(10), consumer.next()).await;
    let error = ended.expect("it ends").unwrap().unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Forbidden, "{error}");
    let attempts = proxy.accepted() - before;
    assert!(attempts <= 4, "{attempts} connections were made");
}

/// mmate for Go declares its queues durable, and without any arguments.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_mmate_for_go_has_made_is_used_in_each_way_to_declare() {
    let stranger = Stranger::at(&amqp_url()).await;
    let mut plan = plan("from-go");
    let durable = QueueDeclareOptions::durable();
    let theirs = plan.name.as_str().into();
    stranger.channel.queue_declare(theirs, durable, FieldTable::default()).await.unwrap();
    let connection = connect(shared()).await;

    let error = connection.declare(&plan).await.unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Mismatch, "{error}");
    for part in [plan.name.as_str(), ".queue_kind(", ".passive()"] {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }

    plan.kind = QueueKind::Classic;
    for declare in [Declare::Create, Declare::Passive, Declare::Verify, Declare::LeaveAlone] {
        plan.declare = declare;
        connection.declare(&plan).await.unwrap();
        let mut consumer = connection.consume(&plan, 1).await.unwrap();
        let id = format!("{declare:?}");
        connection.publish(event(&plan, &id)).await.unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!(id_of(&delivery), id);
        ack(delivery).await;
        consumer.stop().await;
    }
}
