//! Dead letters: safe, and telling why they are ones.

use std::time::Duration;

use super::Harness;
use super::stage::{Stage, declare, settle, soon};
use crate::message::{Headers, Message, wire};
use crate::outcome::{DeadLetter, DeadReason};
use crate::transport::{Declare, Settlement};

fn bury(attempts: u32) -> Settlement {
    let letter = DeadLetter::new(DeadReason::Permanent, "no such sku: 4711");
    Settlement::DeadLetter { letter, attempts }
}

fn assert_texts(headers: &Headers, wanted: &[(&str, &str)]) {
    for (name, value) in wanted {
        assert_eq!(headers.text(name), Some(*value), "the header {name}");
    }
}

/// Whoever finds it knows what to do with it.
pub async fn a_dead_letter_says_why_and_where_it_comes_from<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.#"]).await;
    stage.publish("order.created", "one").await;
    settle(stage.inbox(&queue).await.next().await, bury(3)).await;

    let dead = stage.dead_letters(&queue).await.next().await;
    assert_eq!(dead.message.body, "one");
    let headers = &dead.message.headers;
    let topic = stage.name("order.created");
    let wanted = [
        (wire::REASON, "permanent"),
        (wire::ERROR, "no such sku: 4711"),
        (wire::QUEUE, &queue.name),
        (wire::EXCHANGE, wire::EVENTS),
        (wire::ROUTING_KEY, &topic),
    ];
    assert_texts(headers, &wanted);
    assert_eq!(headers.int(wire::ATTEMPTS), Some(3));
    for name in [wire::DEAD_AT, wire::FIRST_FAILED_AT] {
        let time = headers.text(name).unwrap_or_else(|| panic!("there is a header {name}"));
        let parsed = time.parse::<jiff::Timestamp>();
        assert!(parsed.is_ok(), "the header {name} is an RFC 3339 time, and not {time:?}");
    }
}

/// What was published is what is found, in one place and not in two.
pub async fn a_dead_letter_is_the_same_message_and_leaves_its_queue<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.#"]).await;
    let mut message = Message::new(b"{\"odd\": \"\xff\"".to_vec());
    message.properties.message_id = Some("the-id".to_owned());
    message.properties.content_type = Some("application/json".to_owned());
    message.headers.insert("tenant", "acme");
    super::stage::send(&*stage.connection, stage.event("order.created"), message.clone()).await;
    settle(stage.inbox(&queue).await.next().await, bury(1)).await;
    let dead = stage.dead_letters(&queue).await.next().await;
    assert_eq!(dead.message.body, message.body);
    assert_eq!(dead.message.properties.message_id, message.properties.message_id);
    assert_eq!(dead.message.properties.content_type, message.properties.content_type);
    assert_eq!(dead.message.headers.text("tenant"), Some("acme"));

    soon("closing", stage.connection.close()).await;
    let after = Stage::new(harness).await;
    after.put(&queue, Message::new("end")).await;
    assert_eq!(after.inbox(&queue).await.read_until("end").await, [""; 0]);
}

/// The last failure does not hide the first, nor the way back the topic.
pub async fn a_dead_letter_knows_the_first_failure_and_its_topic_after_retries<H: Harness>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["order.#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    stage.publish("order.created", "one").await;
    let after = Duration::from_millis(100);
    settle(inbox.next().await, Settlement::Retry { after, error: "first".to_owned() }).await;
    let again = inbox.next().await;
    let first = again.message.headers.text(wire::FIRST_FAILED_AT).map(str::to_owned);
    settle(again, bury(2)).await;

    let dead = stage.dead_letters(&queue).await.next().await;
    let headers = &dead.message.headers;
    assert_eq!(headers.text(wire::FIRST_FAILED_AT).map(str::to_owned), first);
    assert_eq!(headers.int(wire::ATTEMPTS), Some(2));
    let topic = stage.name("order.created");
    let wanted = [
        (wire::ERROR, "no such sku: 4711"),
        (wire::QUEUE, &queue.name),
        (wire::EXCHANGE, wire::EVENTS),
        (wire::ROUTING_KEY, &topic),
    ];
    assert_texts(headers, &wanted);
}

/// A queue that others made has a dead-letter queue all the same.
pub async fn a_dead_letter_of_a_queue_that_is_used_as_it_is_is_kept<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut queue = stage.queue("q", &["order.#"]).await;
    queue.declare = Declare::Passive;
    declare(&*stage.connection, &queue).await;
    stage.publish("order.created", "one").await;
    settle(stage.inbox(&queue).await.next().await, bury(1)).await;
    assert_eq!(stage.dead_letters(&queue).await.read().await, "one");
}

/// The queue ends with its process; what could not be handled does not.
pub async fn a_dead_letter_of_a_queue_per_instance_is_kept<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let instance = stage.connect().await;
    let queue = stage.own_plan("q", &["order.#"]);
    declare(&*instance, &queue).await;
    stage.publish("order.created", "one").await;
    let mut inbox = super::stage::Inbox::open(&*instance, &queue, 1).await;
    settle(inbox.next().await, bury(1)).await;
    soon("closing", instance.close()).await;
    assert_eq!(stage.dead_letters(&queue).await.read().await, "one");
}
