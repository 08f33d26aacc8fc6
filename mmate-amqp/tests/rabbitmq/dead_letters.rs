//! Dead letters.

use std::time::Duration;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use mmate_core::message::wire;
use mmate_core::transport::{Declare, QueueMode, QueuePlan, Settled, Settlement};
use mmate_test_support::{amqp_url, unique};

use crate::support::{
    Stranger, ack, broker, bury, connect, ctl, event, headers, id_of, long, next, plan, plan_as,
    private_url, settle, shared, table, until,
};

#[tokio::test]
async fn a_dead_letter_carries_all_that_is_known_of_it() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    for mode in [QueueMode::Shared, QueueMode::PerInstance] {
        let plan = plan_as("dead", mode);
        connection.declare(&plan).await.unwrap();
        let mut consumer = connection.consume(&plan, 10).await.unwrap();
        connection.publish(event(&plan, "the-id")).await.unwrap();
        settle(next(&mut consumer).await, bury()).await;

        let dead = stranger.get(&plan.dead_letter_queue()).await.delivery;
        assert_eq!(dead.exchange.as_str(), "mmate.dlx");
        assert_eq!(dead.routing_key.as_str(), plan.name);
        assert_eq!(dead.data, b"body of the-id");
        assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), "the-id");
        let mut found = headers(&dead.properties);
        for time in [wire::FIRST_FAILED_AT, wire::DEAD_AT] {
            let Some(AMQPValue::LongString(time)) = found.remove(time) else {
                panic!("{time} is missing or no text");
            };
            // Such as 2026-11-21T13:16:37.409Z.
            let time = time.to_string();
            assert!(time.len() == 24 && time.ends_with('Z') && &time[10..11] == "T", "{time}");
        }
        let expected = [
            (wire::ATTEMPTS, AMQPValue::LongLongInt(3)),
            (wire::ERROR, long("no such sku: 4711")),
            (wire::EXCHANGE, long("mmate.events")),
            (wire::QUEUE, long(&plan.name)),
            (wire::REASON, long("permanent")),
            (wire::ROUTING_KEY, long(&format!("{}.created", plan.name))),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }
}

/// F29: somebody has deleted the dead-letter queue.
#[tokio::test]
async fn a_dead_letter_queue_that_is_gone_is_made_again_before_the_original_is_acked() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let plan = plan("gone");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    let dead = plan.dead_letter_queue();
    let (queue, key, none) = (dead.as_str(), plan.name.as_str(), FieldTable::default());

    connection.publish(event(&plan, "1")).await.unwrap();
    stranger.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    settle(next(&mut consumer).await, bury()).await;
    stranger.until_ready(&dead, 1).await;

    connection.publish(event(&plan, "2")).await.unwrap();
    let unbinding =
        stranger.channel.queue_unbind(queue.into(), "mmate.dlx".into(), key.into(), none);
    unbinding.await.unwrap();
    settle(next(&mut consumer).await, bury()).await;
    stranger.until_ready(&dead, 2).await;
}

/// F29: nobody takes the dead letter, and we may not make anybody who does.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_nobody_takes_leaves_the_original_with_the_broker() {
    let url = private_url();
    let user = unique("limited");
    ctl(&["add_user", &user, "secret"]);
    ctl(&["set_permissions", &user, "^$", ".*", ".*"]);
    let limited = broker(&url.replace("guest:guest", &format!("{user}:secret")))
        .settle_timeout(Duration::from_millis(700));
    let limited = connect(limited).await;
    let owner = connect(broker(&url)).await;
    let stranger = Stranger::at(&url).await;
    let mut plan = plan("nobody");
    owner.declare(&plan).await.unwrap();
    plan.declare = Declare::Passive;
    let mut consumer = limited.consume(&plan, 1).await.unwrap();
    let dead = plan.dead_letter_queue();
    let delete = QueueDeleteOptions::default();
    stranger.channel.queue_delete(dead.as_str().into(), delete).await.unwrap();

    limited.publish(event(&plan, "1")).await.unwrap();
    let settled = next(&mut consumer).await.settle(bury()).await;
    let Settled::Lost { reason } = settled else { panic!("nobody has the dead letter") };
    assert!(reason.contains(&dead) || reason.contains("mmate.dlx"), "{reason}");
    let again = next(&mut consumer).await;
    assert_eq!((id_of(&again).as_str(), again.redelivered), ("1", true));

    // It is not given up for ever: when there is a way again, it is taken.
    owner.declare(&{ QueuePlan::new(plan.name.clone(), QueueMode::Shared) }).await.unwrap();
    settle(again, bury()).await;
    stranger.until_ready(&dead, 1).await;
}

/// F30
#[tokio::test]
async fn a_dead_letter_that_is_refused_leaves_the_original_with_the_broker() {
    let stranger = Stranger::at(&amqp_url()).await;
    let plan = plan("refused");
    let dead = plan.dead_letter_queue();
    let full =
        table([("x-max-length", AMQPValue::LongInt(0)), ("x-overflow", long("reject-publish"))]);
    let options = QueueDeclareOptions::durable();
    stranger.channel.queue_declare(dead.as_str().into(), options, full).await.unwrap();
    let connection = connect(shared().settle_timeout(Duration::from_millis(700))).await;
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 1).await.unwrap();
    connection.publish(event(&plan, "1")).await.unwrap();
    let settled = next(&mut consumer).await.settle(bury()).await;
    assert!(settled.is_lost(), "the broker refused the dead letter");
    let again = next(&mut consumer).await;
    assert_eq!((id_of(&again).as_str(), again.redelivered), ("1", true));
    assert_eq!(stranger.ready(&dead).await, Some(0));
    ack(again).await;
}

/// S17: who dies with a message never settles it; the broker counts how often it was shown.
#[tokio::test]
async fn a_message_that_nobody_settles_is_dead_lettered_by_the_broker_after_the_limit() {
    let stranger = Stranger::at(&amqp_url()).await;
    let limit = 3;
    let with_limit = || shared().delivery_limit(limit);
    let plan = plan("crashes");
    let publisher = connect(with_limit()).await;
    publisher.declare(&plan).await.unwrap();
    publisher.publish(event(&plan, "poison")).await.unwrap();
    for shown in 0..=limit {
        let connection = connect(with_limit()).await;
        let delivery = next(&mut connection.consume(&plan, 1).await.unwrap()).await;
        assert_eq!(delivery.redelivered, shown > 0);
        assert_eq!(delivery.failed_attempts, 0);
        drop(connection);
    }
    let dead = stranger.get(&plan.dead_letter_queue()).await.delivery;
    assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), "poison");
    assert_eq!(dead.exchange.as_str(), "mmate.dlx");
}

/// Requeueing does count toward the delivery limit; a retry and a deferral do not.
#[tokio::test]
async fn retries_and_deferrals_do_not_count_toward_the_delivery_limit() {
    let connection = connect(shared().delivery_limit(2)).await;
    let plan = plan("limit");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 1).await.unwrap();
    connection.publish(event(&plan, "1")).await.unwrap();
    for _ in 0..5 {
        let short = Duration::from_millis(10);
        settle(next(&mut consumer).await, crate::support::retry(short)).await;
        settle(next(&mut consumer).await, Settlement::Defer { after: short }).await;
    }
    let last = next(&mut consumer).await;
    assert_eq!((last.failed_attempts, last.deferrals), (5, 5));
    ack(last).await;
}

/// Headers that leave no room for ours cannot be copied; the broker dead-letters them as they are.
#[tokio::test]
async fn a_message_whose_headers_leave_no_room_for_more_is_dead_lettered_as_it_is() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let plan = plan("heavy");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 1).await.unwrap();
    let heavy = table([("heavy", long(&"x".repeat(125 * 1024)))]);
    let properties = lapin::BasicProperties::default().with_headers(heavy);
    stranger.publish(&plan.name, properties, b"heavy").await;
    settle(next(&mut consumer).await, bury()).await;
    let dead = stranger.get(&plan.dead_letter_queue()).await.delivery;
    assert_eq!(dead.data, b"heavy");
    until("it has left its queue", async || {
        (stranger.ready(&plan.name).await == Some(0)).then_some(())
    })
    .await;
}
