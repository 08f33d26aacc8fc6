//! Partitions without the plugin that they need.

use mmate_core::transport::{HashBy, TransportErrorKind};
use mmate_core::{HandlerError, OrderKey, Service, Subscription};
use mmate_test_support::unique;

use crate::support::{PATIENCE, broker, connect, next, plan, private_url, settle};

/// The private broker has no plugin. It answers to an exchange type that it does not know by
/// closing the connection, which is not taken for a cut, or starting would go on for ever.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_plugin_the_error_names_it_and_the_command_that_enables_it() {
    let connection = connect(broker(&private_url())).await;
    let parts = plan("parted").partitioned(2, &HashBy::Topic);
    let declared = tokio::time::timeout(PATIENCE, connection.declare(&parts[0])).await;
    let error = declared.expect("it does not try for ever").unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Configuration, "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&format!(
            "declare the exchange {}.partitions",
            parts[0].partition.as_ref().unwrap().of
        )),
        "{text}"
    );
    assert!(text.contains("plugin rabbitmq_consistent_hash_exchange"), "{text}");
    assert!(text.contains("rabbitmq-plugins enable rabbitmq_consistent_hash_exchange"), "{text}");

    // The connection is as good as new.
    let whole = plan("whole");
    connection.declare(&whole).await.unwrap();
    connection.publish(crate::support::event(&whole, "1")).await.unwrap();
    let mut consumer = connection.consume(&whole, 1).await.unwrap();
    settle(next(&mut consumer).await, mmate_core::transport::Settlement::Ack).await;
    connection.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_partitions_does_not_start_without_the_plugin() {
    let service = unique("bank");
    let subscription = Subscription::per_service("book", [format!("{service}.#")])
        .ordered_by(OrderKey::topic())
        .partitions(2)
        .handler(async || Ok::<(), HandlerError>(()));
    let starting = Service::new(service).subscribe(subscription).start(broker(&private_url()));
    let started = tokio::time::timeout(PATIENCE, starting).await.expect("it does not hang");
    let error = started.map(drop).unwrap_err().to_string();
    assert!(error.contains("rabbitmq-plugins enable"), "{error}");
}
