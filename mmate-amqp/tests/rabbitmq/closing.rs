//! What becomes of acknowledgements that were written just before the end.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use mmate_core::transport::Connection;
use mmate_test_support::amqp_url;

use crate::support::{Stranger, ack, connect, next, plan, publish_all, shared, until};

/// A quorum queue forgets acknowledgements that came in many frames just before their channel is
/// closed, unless it is given a moment.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_just_before_the_end_does_not_come_back() {
    const MESSAGES: u32 = 1000;
    let stranger = Stranger::at(&amqp_url()).await;
    for pause in 0..10 {
        let connection: Arc<dyn Connection> = Arc::from(connect(shared()).await);
        let plan = plan("acknowledged-at-the-end");
        connection.declare(&plan).await.unwrap();
        publish_all(&connection, &plan, 0..MESSAGES).await;
        let mut consumer = connection.consume(&plan, 4000).await.unwrap();
        let mut deliveries = Vec::new();
        for _ in 0..MESSAGES {
            deliveries.push(next(&mut consumer).await);
        }
        // The last ones first: none has all before it finished, so each is written in a frame of its own, soon.
        let first = deliveries.drain(..100).collect::<Vec<_>>();
        for delivery in deliveries.into_iter().rev() {
            ack(delivery).await;
        }
        consumer.stop().await;
        tokio::time::sleep(Duration::from_micros(500 * pause)).await;
        for delivery in first {
            ack(delivery).await;
        }
        drop(consumer);
        connection.close().await;
        let look = || async {
            let look = QueueDeclareOptions::default().passive();
            let queue = plan.name.as_str().into();
            let declared = stranger.channel.queue_declare(queue, look, FieldTable::default()).await;
            let queue = declared.unwrap();
            (queue.consumer_count() == 0).then_some(queue.message_count())
        };
        assert_eq!(until("nobody consumes", look).await, 0, "messages came back");
    }
}
