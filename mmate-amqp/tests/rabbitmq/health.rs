//! What is said of connections and consumers while they are in trouble.

use lapin::options::QueueDeleteOptions;
use mmate_core::health::Status;
use mmate_core::transport::{Connection, Declare};
use mmate_test_support::amqp_url;

use crate::proxy::Proxy;
use crate::support::{Stranger, broker, connect, plan, shared, until};

fn worst(connection: &dyn Connection) -> Status {
    connection.status().into_iter().fold(Status::Up, |worst, (_, status)| worst.and(status))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_broker_is_told_with_the_reason_until_it_is_back() {
    let proxy = Proxy::before(&amqp_url()).await;
    let connection = connect(broker(&proxy.url())).await;
    let plan = plan("health");
    connection.declare(&plan).await.unwrap();
    let consumer = connection.consume(&plan, 1).await.unwrap();
    let names: Vec<_> = connection.status().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["publish", "consume"]);
    assert!(worst(&*connection).is_up());
    let status = consumer.status();
    assert!(status.status().is_up(), "{}", status.status());

    proxy.refuse(true);
    proxy.cut();
    until("the connections are down", async || {
        connection.status().iter().all(|(_, status)| status.is_down()).then_some(())
    })
    .await;
    let told = worst(&*connection).to_string();
    assert!(told.starts_with("down: not connected for 0 s: "), "{told}");
    until("the consumer is down", async || status.status().is_down().then_some(())).await;

    proxy.refuse(false);
    until("all is well", async || {
        (worst(&*connection).is_up() && status.status().is_up()).then_some(())
    })
    .await;
    connection.close().await;
    assert_eq!(worst(&*connection), Status::down("it was closed"));
}

/// F27: a consumer that may not make its queue again fails, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_queue_is_gone_says_so() {
    let connection = connect(shared()).await;
    let mut plan = plan("health-gone");
    connection.declare(&plan).await.unwrap();
    plan.declare = Declare::Passive;
    let mut consumer = connection.consume(&plan, 1).await.unwrap();
    let status = consumer.status();
    let stranger = Stranger::at(&amqp_url()).await;
    let deletion = QueueDeleteOptions::default();
    stranger.channel.queue_delete(plan.name.as_str().into(), deletion).await.unwrap();
    let error = consumer.next().await.unwrap().unwrap_err();
    assert_eq!(status.status(), Status::down(error.to_string()));
    connection.close().await;
}
