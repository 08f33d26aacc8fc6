//! Messages that are prepared, kept, and published later.

use std::sync::{Arc, Mutex};

use mmate_core::transport::Publication;
use mmate_core::{
    Envelope, HandlerError, InProcess, MessageId, Outgoing, Publisher, Service, Subscription,
};

async fn bookings() -> Result<(), HandlerError> {
    Ok(())
}

/// S28: prepared or published, the ids of a handler's messages are of one count.
#[tokio::test]
async fn a_prepared_message_is_one_of_those_of_its_handler_and_can_be_published_again() {
    let broker = InProcess::new();
    // It makes the queue, in which messages then stay.
    let sink = Subscription::shared("sink").handler(bookings);
    let maker = Service::new("maker").subscribe(sink).start(broker.clone()).await.unwrap();
    maker.stop().await.unwrap();
    let kept = Arc::new(Mutex::new(Vec::<(MessageId, Publication)>::new()));
    let handler = {
        let kept = Arc::clone(&kept);
        move |publisher: Publisher| {
            let kept = Arc::clone(&kept);
            async move {
                publisher.publish(Outgoing::to_queue("sink", "Note", "first")).await?;
                let second = publisher.prepare(Outgoing::to_queue("sink", "Note", "second"))?;
                kept.lock().unwrap().push(second);
                publisher.publish(Outgoing::to_queue("sink", "Note", "third")).await?;
                Ok::<(), HandlerError>(())
            }
        }
    };
    let subscription = Subscription::per_service("q", ["order.#"]).handler(handler);
    let running = Service::new("s").subscribe(subscription).start(broker.clone()).await.unwrap();
    let order = Outgoing::event("order.created", "Order", &1).id_text("order-7");
    running.publisher().publish(order).await.unwrap();
    broker.idle().await;
    assert_eq!(broker.messages("sink").len(), 2, "what is prepared is not published");
    let (id, publication) = kept.lock().unwrap().pop().unwrap();
    for _ in 0..2 {
        running.publisher().publish_prepared(publication.clone()).await.unwrap();
    }
    let parent: MessageId = "order-7".parse().unwrap();
    assert_eq!(id, parent.child("s/q", 1));
    let messages = broker.messages("sink");
    let ids: Vec<_> = messages.iter().map(|m| m.properties.message_id.clone().unwrap()).collect();
    let child = |ordinal| parent.child("s/q", ordinal).to_string();
    assert_eq!(ids, [child(0), child(2), child(1), child(1)]);
    for message in &messages {
        let envelope = Envelope::from_json(message.body.clone()).unwrap();
        assert_eq!(envelope.causation_id.unwrap(), parent);
        assert_eq!(envelope.correlation_id.unwrap().as_str(), "order-7");
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_published_cannot_be_prepared_either() {
    let publisher = Publisher::connect(&InProcess::new(), "shop").await.unwrap();
    assert!(publisher.prepare(Outgoing::event("a.*.b", "Note", "x")).is_err());
    assert!(Outgoing::to_queue("", "Note", "x").prepare("shop").is_err());
}
