//! Coming back after all kinds of failures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::options::QueueDeleteOptions;
use mmate_core::TransportErrorKind;
use mmate_core::transport::{Connection, Declare, QueueMode, Settlement};
use mmate_test_support::{RabbitMq, amqp_url};

use crate::proxy::Proxy;
use crate::support::{
    Stranger, ack, blocking, broker, connect, event, id_of, next, plan, plan_as, shared, until,
};
use crate::traffic::Traffic;

/// After a broker has started.
const SOON: Duration = Duration::from_secs(5);

/// F16
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_started_again_loses_nothing_and_all_goes_on() {
    let mut server = blocking(|| RabbitMq::start().unwrap()).await;
    let connection: Arc<dyn Connection> = Arc::from(connect(by_default(&server)).await);
    let plan = plan("killed");
    let own = plan_as("own", QueueMode::PerInstance);
    connection.declare(&plan).await.unwrap();
    connection.declare(&own).await.unwrap();
    let mut own_consumer = connection.consume(&own, 10).await.unwrap();
    let traffic = Traffic::start(&connection, &plan, 20).await;
    for _ in 0..2 {
        traffic.run_for_a_while().await;
        server = blocking(move || {
            server.kill();
            server.start_again().unwrap();
            server
        })
        .await;
        traffic.until_it_flows_within(SOON, &server.url(), &plan).await;
    }
    until("the queue per instance is back", async || {
        connection.publish(event(&own, "own")).await.ok()
    })
    .await;
    assert_eq!(id_of(&next(&mut own_consumer).await), "own");
    println!("{}", traffic.settle_up(&*connection).await);
    blocking(move || drop(server)).await;
}

/// With the default delays, which the time limits are for.
fn by_default(server: &RabbitMq) -> mmate_amqp::Amqp {
    mmate_amqp::Amqp::new(server.url())
}

/// F17
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_restarted_in_good_order_loses_nothing_and_all_goes_on() {
    let mut server = blocking(|| RabbitMq::start().unwrap()).await;
    let connection: Arc<dyn Connection> = Arc::from(connect(by_default(&server)).await);
    let plan = plan("restarted");
    connection.declare(&plan).await.unwrap();
    let traffic = Traffic::start(&connection, &plan, 20).await;
    traffic.run_for_a_while().await;
    server = blocking(move || {
        server.stop().unwrap();
        server.start_again().unwrap();
        server
    })
    .await;
    traffic.until_it_flows_within(SOON, &server.url(), &plan).await;
    println!("{}", traffic.settle_up(&*connection).await);
    blocking(move || drop(server)).await;
}

/// F18
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stands_still_is_noticed_and_all_goes_on_when_it_wakes() {
    let server = Arc::new(blocking(|| RabbitMq::start().unwrap()).await);
    let proxy = Proxy::before(&server.url()).await;
    let broker = mmate_amqp::Amqp::new(proxy.url()).heartbeat(Duration::from_secs(1));
    let connection: Arc<dyn Connection> = Arc::from(connect(broker).await);
    let plan = plan("still");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 20).await.unwrap();
    connection.publish(event(&plan, "held")).await.unwrap();
    let held = next(&mut consumer).await;
    server.pause();
    let begin = Instant::now();
    until("both are given up", async || (proxy.accepted() >= 4).then_some(())).await;
    println!("noticed after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(held.settle(Settlement::Ack).await.is_lost());
    server.resume();
    let begin = Instant::now();
    assert_eq!(id_of(&next(&mut consumer).await), "held");
    connection.publish(event(&plan, "after")).await.unwrap();
    println!("messages flow {:?} after the broker has woken", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    connection.close().await;
    blocking(move || drop(server)).await;
}

/// F19
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_back_within_two_seconds_and_loses_nothing() {
    let proxy = Proxy::before(&amqp_url()).await;
    let connection: Arc<dyn Connection> =
        Arc::from(connect(mmate_amqp::Amqp::new(proxy.url())).await);
    let plan = plan("cut");
    connection.declare(&plan).await.unwrap();
    let traffic = Traffic::start(&connection, &plan, 20).await;
    for _ in 0..10 {
        traffic.run_for_a_while().await;
        proxy.cut();
        traffic.until_it_flows_within(Duration::from_secs(2), &amqp_url(), &plan).await;
    }
    println!("{}", traffic.settle_up(&*connection).await);
}

/// F22: nothing comes and nothing goes, and nobody says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_drops_everything_is_noticed_by_the_heartbeat() {
    let proxy = Proxy::before(&amqp_url()).await;
    let broker = broker(&proxy.url())
        .heartbeat(Duration::from_secs(1))
        .connect_timeout(Duration::from_secs(1))
        .answer_timeout(Duration::from_secs(1));
    let connection: Arc<dyn Connection> = Arc::from(connect(broker).await);
    let plan = plan("dropped");
    connection.declare(&plan).await.unwrap();
    let traffic = Traffic::start(&connection, &plan, 20).await;
    traffic.run_for_a_while().await;
    let connections = proxy.accepted();
    proxy.hold_all(true);
    let begin = Instant::now();
    until("it is noticed", async || (proxy.accepted() > connections).then_some(())).await;
    println!("noticed after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(10));
    // What was held back is dropped, and the network heals.
    proxy.cut();
    proxy.hold_all(false);
    let begin = Instant::now();
    traffic.until_it_flows().await;
    println!("messages flow {:?} after the network has healed", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(10));
    println!("{}", traffic.settle_up(&*connection).await);
}

/// F23: deliveries arrive, acknowledgements do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_works_in_one_direction_only_is_noticed_by_the_broker() {
    let proxy = Proxy::before(&amqp_url()).await;
    let broker = broker(&proxy.url()).heartbeat(Duration::from_secs(1));
    let connection: Arc<dyn Connection> = Arc::from(connect(broker).await);
    let plan = plan("one-way");
    connection.declare(&plan).await.unwrap();
    let traffic = Traffic::start(&connection, &plan, 20).await;
    traffic.run_for_a_while().await;
    let connections = proxy.accepted();
    proxy.hold_to_broker(true);
    until("it is noticed", async || (proxy.accepted() > connections).then_some(())).await;
    proxy.hold_to_broker(false);
    traffic.until_it_flows().await;
    println!("{}", traffic.settle_up(&*connection).await);
}

/// F27
#[tokio::test]
async fn a_queue_that_is_deleted_under_its_consumer_is_made_again_and_consumed() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let plan = plan("deleted");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    let delete = async || {
        let options = QueueDeleteOptions::default();
        stranger.channel.queue_delete(plan.name.as_str().into(), options).await.unwrap();
    };
    for round in ["1", "2", "3"] {
        delete().await;
        let begin = Instant::now();
        let publishing =
            until("the queue is back", async || connection.publish(event(&plan, round)).await.ok());
        let (delivery, ()) = tokio::join!(next(&mut consumer), publishing);
        assert_eq!(id_of(&delivery), round);
        ack(delivery).await;
        println!("consumed again after {:?}", begin.elapsed());
        assert!(begin.elapsed() < Duration::from_secs(3));
    }
    // Nobody asks for a delivery, so nobody sees that there will be none.
    delete().await;
    let begin = Instant::now();
    until("the queue is back", async || connection.publish(event(&plan, "4")).await.ok()).await;
    println!("made again after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(5));
    ack(next(&mut consumer).await).await;
}

/// F27
#[tokio::test]
async fn a_queue_that_is_only_used_and_is_deleted_ends_its_consumer_with_an_error() {
    let stranger = Stranger::at(&amqp_url()).await;
    let connection = connect(shared()).await;
    let mut plan = plan("theirs");
    connection.declare(&plan).await.unwrap();
    plan.declare = Declare::Passive;
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    let delete = QueueDeleteOptions::default();
    stranger.channel.queue_delete(plan.name.as_str().into(), delete).await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(5), consumer.next()).await.unwrap();
    let error = next.expect("it is told").map(drop).unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::NotFound, "{error}");
    assert!(consumer.next().await.is_none());
}

/// F24, F25: the broker closes the channel of a consumer that is too slow.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_channel_restarts_that_consumer_alone() {
    let server = Arc::new(blocking(|| RabbitMq::start().unwrap()).await);
    let ctl = |expression: String| {
        let server = Arc::clone(&server);
        blocking(move || server.ctl(&["eval", &expression]).unwrap())
    };
    ctl("application:set_env(rabbit, consumer_timeout, 1000).".to_owned()).await;
    ctl("application:set_env(rabbit, channel_tick_interval, 500).".to_owned()).await;
    let connection = connect(broker(&server.url())).await;
    let (slow, quick) = (plan("slow"), plan("quick"));
    let mut consumers = Vec::new();
    for plan in [&slow, &quick] {
        connection.declare(plan).await.unwrap();
        consumers.push(connection.consume(plan, 1).await.unwrap());
    }
    let mut quick_consumer = consumers.pop().unwrap();
    let mut slow_consumer = consumers.pop().unwrap();
    connection.publish(event(&slow, "slow")).await.unwrap();
    let first = next(&mut slow_consumer).await;
    let again = next(&mut slow_consumer).await;
    assert_eq!((id_of(&again).as_str(), again.redelivered), ("slow", true));
    assert!(first.settle(Settlement::Ack).await.is_lost(), "its channel is gone");
    ack(again).await;
    connection.publish(event(&quick, "quick")).await.unwrap();
    let delivery = next(&mut quick_consumer).await;
    assert!(!delivery.redelivered);
    ack(delivery).await;
    let connections = blocking({
        let server = Arc::clone(&server);
        move || server.ctl(&["list_connections", "name"]).unwrap()
    });
    assert_eq!(connections.await.lines().count(), 3, "a heading, and our two connections");
    connection.close().await;
    blocking(move || drop(server)).await;
}

/// A consumer that nobody asks for its next delivery is brought back as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_handlers_are_busy_is_back_before_they_are_done() {
    let proxy = Proxy::before(&amqp_url()).await;
    let connection = connect(broker(&proxy.url())).await;
    let plan = plan("busy");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 1).await.unwrap();
    connection.publish(event(&plan, "1")).await.unwrap();
    let busy = next(&mut consumer).await;
    proxy.cut();
    let stranger = Stranger::at(&amqp_url()).await;
    // Back in the queue for a moment, and then with the new consumer.
    until("the consumer is back", async || {
        let look = lapin::options::QueueDeclareOptions::default().passive();
        let none = lapin::types::FieldTable::default();
        let queue = stranger.channel.queue_declare(plan.name.as_str().into(), look, none);
        let queue = queue.await.unwrap();
        (proxy.accepted() >= 4 && queue.consumer_count() == 1 && queue.message_count() == 0)
            .then_some(())
    })
    .await;
    assert!(busy.settle(Settlement::Ack).await.is_lost());
    let again = next(&mut consumer).await;
    assert!(again.redelivered);
    ack(again).await;
}

/// S49
#[tokio::test]
async fn a_stopped_consumer_is_not_brought_back_by_a_cut() {
    let proxy = Proxy::before(&amqp_url()).await;
    let connection = connect(broker(&proxy.url())).await;
    let plan = plan("stopped");
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 10).await.unwrap();
    consumer.stop().await;
    assert!(consumer.next().await.is_none());
    proxy.cut();
    connection.publish(event(&plan, "1")).await.unwrap();
    let stranger = Stranger::at(&amqp_url()).await;
    stranger.until_ready(&plan.name, 1).await;
    assert!(consumer.next().await.is_none());
    consumer.stop().await;
}

/// What is deleted under a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deleted {
    Queue,
    Exchange,
    DeadLetterQueue,
}

/// F27: where nothing may be made, the consumer fails, and soon; silence would look like no work.
#[tokio::test]
async fn what_is_deleted_and_must_not_be_made_ends_the_consumer_within_5_seconds() {
    use Deleted::{DeadLetterQueue, Exchange, Queue};
    use mmate_core::transport::Declare::{LeaveAlone, Verify};
    let stranger = Stranger::at(&amqp_url()).await;
    for (mode, deleted) in
        [(Verify, Queue), (Verify, Exchange), (Verify, DeadLetterQueue), (LeaveAlone, Queue)]
    {
        let exchange = mmate_test_support::unique("deleted");
        let mut plan = plan("gone");
        plan.bindings.clear();
        let pattern = mmate_core::topic::TopicPattern::new("#").unwrap();
        let mut plan = plan.bind(exchange.as_str(), pattern);
        let connection = connect(shared()).await;
        connection.declare(&plan).await.unwrap();
        plan.declare = mode;
        connection.declare(&plan).await.unwrap();
        let mut consumer = connection.consume(&plan, 1).await.unwrap();
        let begin = Instant::now();
        let channel = &stranger.channel;
        let options = QueueDeleteOptions::default();
        let dead = plan.dead_letter_queue();
        match deleted {
            Queue => {
                channel.queue_delete(plan.name.as_str().into(), options).await.unwrap();
            }
            DeadLetterQueue => {
                channel.queue_delete(dead.as_str().into(), options).await.unwrap();
            }
            Exchange => {
                let options = lapin::options::ExchangeDeleteOptions::default();
                channel.exchange_delete(exchange.as_str().into(), options).await.unwrap();
            }
        }
        let ended = tokio::time::timeout(Duration::from_secs(5), consumer.next()).await;
        let error = ended.expect("it is told within 5 s").expect("it is told").unwrap_err();
        assert_eq!(error.kind(), TransportErrorKind::NotFound, "{error}");
        let name = match deleted {
            Queue => &plan.name,
            Exchange => &exchange,
            DeadLetterQueue => &dead,
        };
        assert!(error.to_string().contains(name.as_str()), "{error}");
        println!("{mode:?}, {deleted:?} deleted: told after {:?}", begin.elapsed());
        let there = stranger.ready(&plan.name).await.is_some();
        assert_eq!(there, deleted != Queue, "nothing was made again");
        connection.close().await;
    }
}
