//! Bodies that are too large to be held.

use mmate_core::transport::{Declare, QueueKind, QueueMode};
use mmate_test_support::amqp_url;

use crate::support::{Stranger, ack, connect, event, id_of, next, plan, plan_as, shared, until};

const LIMIT: usize = 1_000;

/// F31
#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_the_limit_is_dead_lettered_whole_and_its_neighbours_are_delivered() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared().max_body_bytes(LIMIT as u64)).await;
    let plan = plan("large");
    connection.declare(&plan).await.unwrap();
    let sizes = [LIMIT, LIMIT + 1, 0, 300_000, 10];
    for (n, size) in sizes.into_iter().enumerate() {
        let mut publication = event(&plan, &n.to_string());
        publication.message.body = vec![7; size].into();
        connection.publish(publication).await.unwrap();
    }
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    for (id, size) in [("0", LIMIT), ("2", 0), ("4", 10)] {
        let delivery = next(&mut consumer).await;
        assert_eq!((id_of(&delivery).as_str(), delivery.message.body.len()), (id, size));
        ack(delivery).await;
    }
    for (id, size) in [("1", LIMIT + 1), ("3", 300_000)] {
        let dead = stranger.get(&plan.dead_letter_queue()).await.delivery;
        assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), id);
        assert_eq!(dead.data, vec![7; size]);
    }
    until("they have left their queue", async || {
        (stranger.ready(&plan.name).await == Some(0)).then_some(())
    })
    .await;
}

/// F31: who refuses a message there loses it.
#[tokio::test]
async fn queues_that_would_drop_a_message_have_no_limit() {
    let owner = connect(shared()).await;
    let connection = connect(shared().max_body_bytes(LIMIT as u64)).await;
    let mut classic = plan("classic");
    classic.kind = QueueKind::Classic;
    let own = plan_as("own", QueueMode::PerInstance);
    let mut used = plan("used");
    owner.declare(&used).await.unwrap();
    used.declare = Declare::Passive;
    for plan in [classic, own, used] {
        connection.declare(&plan).await.unwrap();
        let mut consumer = connection.consume(&plan, 10).await.unwrap();
        let mut publication = event(&plan, "large");
        publication.message.body = vec![7; LIMIT + 1].into();
        connection.publish(publication).await.unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.message.body.len(), LIMIT + 1, "{}", plan.name);
        ack(delivery).await;
    }
}
