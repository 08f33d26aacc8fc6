//! Requests of clients that are not ours.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use mmate_core::{
    Envelope, HandlerError, Json, Outgoing, Publisher, Reply, Running, Service, Subscription,
};
use mmate_test_support::{RabbitMq, amqp_url, unique};
use tokio::sync::Semaphore;

use crate::support::{PATIENCE, Stranger, blocking, broker, shared};

#[derive(serde::Serialize, serde::Deserialize)]
struct Question {
    number: u64,
}

async fn double(Json(of): Json<Question>) -> Result<Reply<u64>, HandlerError> {
    Ok(Reply(of.number * 2))
}

async fn start() -> (Running, String) {
    let name = unique("math");
    let subscription = Subscription::queries("double", [&name]).handler(double);
    let running = Service::new(name.as_str()).subscribe(subscription).start(shared()).await;
    let queue = format!("{name}.double");
    (running.unwrap(), queue)
}

async fn ask(stranger: &Stranger, queue: &str, body: String, properties: BasicProperties) {
    let options = BasicPublishOptions::default();
    let channel = &stranger.channel;
    channel
        .basic_publish("".into(), queue.into(), options, body.as_bytes(), properties)
        .await
        .unwrap();
}

async fn reply(replies: &mut lapin::Consumer) -> lapin::message::Delivery {
    tokio::time::timeout(PATIENCE, replies.next()).await.unwrap().unwrap().unwrap()
}

/// The address is no queue: the broker hands the reply to the client that waits.
#[tokio::test]
async fn a_client_that_uses_direct_reply_to_is_answered() {
    let (running, queue) = start().await;
    let stranger = Stranger::at(&amqp_url()).await;
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let (direct, none) = ("amq.rabbitmq.reply-to", FieldTable::default());
    let mut replies =
        stranger.channel.basic_consume(direct.into(), "".into(), options, none).await.unwrap();
    let properties = BasicProperties::default()
        .with_reply_to(direct.into())
        .with_correlation_id("the-question".into());
    let body = r#"{"id":"1","type":"Double","payload":{"number":21}}"#;
    ask(&stranger, &queue, body.to_owned(), properties).await;
    let reply = reply(&mut replies).await;
    let id = reply.properties.correlation_id().as_ref().map(|id| id.as_str());
    assert_eq!(id, Some("the-question"));
    assert_eq!(Envelope::from_json(reply.data).unwrap().payload::<u64>().unwrap(), 42);
    running.stop().await.unwrap();
}

/// mmate for Go names the reply queue in the payload, and knows no properties.
#[tokio::test]
async fn a_client_that_names_its_queue_in_the_payload_is_answered() {
    let (running, queue) = start().await;
    let stranger = Stranger::at(&amqp_url()).await;
    let address = format!("bridge.reply.{}", unique("go"));
    let (options, none) = (QueueDeclareOptions::default(), FieldTable::default());
    stranger.channel.queue_declare(address.as_str().into(), options, none).await.unwrap();
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut replies = stranger
        .channel
        .basic_consume(address.as_str().into(), "".into(), options, none)
        .await
        .unwrap();
    let body = format!(
        r#"{{"id":"1","type":"Double","correlationId":"c-1","payload":{{"number":4,"replyTo":"{address}"}}}}"#
    );
    ask(&stranger, &queue, body, BasicProperties::default()).await;
    let reply = reply(&mut replies).await;
    let envelope = Envelope::from_json(reply.data).unwrap();
    assert_eq!(envelope.correlation_id.as_ref().map(|id| id.as_str()), Some("c-1"));
    assert_eq!(envelope.payload::<u64>().unwrap(), 8);
    assert_eq!(running.stats().total().replies_lost, 0);
    tokio::time::timeout(Duration::from_secs(60), running.stop()).await.unwrap().unwrap();
}

/// F16: neither a request nor the wait for its reply ends with the broker.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_the_wait_for_its_reply_survive_a_broker_that_is_killed() {
    let mut server = blocking(|| RabbitMq::start().unwrap()).await;
    let (at_work, mut working) = tokio::sync::mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = Arc::clone(&gate);
        move |Json(of): Json<Question>| {
            let (at_work, gate) = (at_work.clone(), Arc::clone(&gate));
            async move {
                let _ = at_work.send(of.number);
                let _pass = gate.acquire().await;
                Ok::<_, HandlerError>(Reply(of.number * 2))
            }
        }
    };
    let subscription = Subscription::queries("double", ["Double"]).handler(handler);
    let service = Service::new("math").subscribe(subscription);
    let running = service.start(broker(&server.url())).await.unwrap();
    let asking = Publisher::connect(&broker(&server.url()), "asking").await.unwrap();
    let question = |number: u64| Outgoing::query("Double", &Question { number });
    let request = asking.request::<u64>(question(21)).timeout(PATIENCE);
    let request = tokio::spawn(request.into_future());
    assert_eq!(working.recv().await, Some(21));

    gate.add_permits(1);
    assert_eq!(tokio::time::timeout(PATIENCE, request).await.unwrap().unwrap().unwrap(), 42);
    gate.forget_permits(1);
    let request = tokio::spawn(asking.request::<u64>(question(5)).timeout(PATIENCE).into_future());
    assert_eq!(working.recv().await, Some(5));
    server = blocking(move || {
        server.kill();
        server.start_again().unwrap();
        server
    })
    .await;
    gate.add_permits(1);
    assert_eq!(tokio::time::timeout(PATIENCE, request).await.unwrap().unwrap().unwrap(), 10);
    assert_eq!(running.stats().total().replies_lost, 0);
    asking.close().await;
    running.stop().await.unwrap();
    blocking(move || drop(server)).await;
}
