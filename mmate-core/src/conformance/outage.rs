//! Cut connections, and closed ones.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Harness;
use super::stage::{Inbox, Stage, declare, eventually, soon, text};
use crate::message::Message;
use crate::transport::{Publication, PublishError, Settlement, TransportErrorKind};

/// Nobody who uses a connection has to restore anything.
pub async fn after_a_cut_publishing_and_consuming_go_on<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    stage.publish("a", "before").await;
    assert_eq!(inbox.read().await, "before");
    soon("the cut", harness.cut()).await;
    stage.publish("a", "after").await;
    // An acknowledgement may have been lost, and a publication repeated.
    while inbox.read().await != "after" {}
}

/// S5, S6: what was being handled is shown again, and the handling that ends late cannot
/// acknowledge the new showing.
pub async fn what_was_unsettled_at_a_cut_is_shown_again_and_its_old_settlement_is_lost<
    H: Harness,
>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let mut inbox = Inbox::open(&*stage.connection, &queue, 10).await;
    for n in 0..5 {
        stage.publish("a", &n.to_string()).await;
    }
    let old = inbox.take(3).await;
    soon("the cut", harness.cut()).await;
    let mut new = HashMap::new();
    while !old.iter().all(|delivery| new.contains_key(&text(delivery))) {
        let delivery = inbox.next().await;
        new.insert(text(&delivery), delivery);
    }
    for delivery in old {
        assert!(new[&text(&delivery)].redelivered, "what was shown before is redelivered");
        let settled = soon("settling", delivery.settle(Settlement::Ack)).await;
        assert!(settled.is_lost(), "the connection of this delivery is gone");
    }
    // What was fetched before the cut may be returned after it. It is lost too, and comes again.
    let mut left: HashSet<String> = (0..5).map(|n| n.to_string()).collect();
    let mut new = new.into_values();
    while !left.is_empty() {
        let delivery = match new.next() {
            Some(delivery) => delivery,
            None => inbox.next().await,
        };
        let shown = text(&delivery);
        if !soon("settling", delivery.settle(Settlement::Ack)).await.is_lost() {
            assert!(left.remove(&shown), "message {shown} is acknowledged once");
        }
    }
    stage.put(&queue, Message::new("end")).await;
    assert_eq!(inbox.read_until("end").await, [""; 0]);
}

/// S5: whoever holds a delivery can ask whether settling it is of any use.
pub async fn a_delivery_knows_when_its_connection_is_gone<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    stage.publish("a", "held").await;
    let old = inbox.next().await;
    assert!(!old.is_lost());
    soon("the cut", harness.cut()).await;
    eventually("the news of the cut", async || old.is_lost()).await;
    // One that was fetched between the cut and the news of it may be lost, too.
    loop {
        let new = inbox.next().await;
        if !new.is_lost() && !soon("settling", new.settle(Settlement::Ack)).await.is_lost() {
            break;
        }
    }
    assert!(old.is_lost(), "a new connection does not bring an old delivery back");
}

/// The queue went with its connection; it is made again, with its bindings and its consumer.
pub async fn a_queue_per_instance_is_back_after_a_cut<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let instance = stage.connect().await;
    let queue = stage.own_plan("q", &["cache.#"]);
    declare(&*instance, &queue).await;
    let mut inbox = Inbox::open(&*instance, &queue, 10).await;
    stage.publish("cache.cleared", "before").await;
    assert_eq!(inbox.read().await, "before");
    soon("the cut", harness.cut()).await;
    // Until the queue is there again, what is published for it reaches nobody.
    soon("a delivery after the cut", async {
        loop {
            let to = stage.event("cache.cleared");
            let publication = Publication::new(to, Message::new("after"));
            let _ = stage.connection.publish(publication).await;
            let wait = Duration::from_millis(50);
            if let Ok(next) = tokio::time::timeout(wait, inbox.next()).await {
                return assert_eq!(text(&next), "after");
            }
        }
    })
    .await;
}

/// A network that fails again and again.
pub async fn cuts_in_a_row_lose_nothing<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let mut inbox = Inbox::open(&*stage.connection, &queue, 4).await;
    let mut missing: HashSet<String> = (0..40).map(|n| n.to_string()).collect();
    for n in 0..40 {
        stage.publish("a", &n.to_string()).await;
        if n % 10 == 5 {
            soon("the cut", harness.cut()).await;
        }
    }
    while !missing.is_empty() {
        let delivery = inbox.next().await;
        if missing.remove(&text(&delivery)) && missing.len() % 10 == 5 {
            // Held over the cut, so that it is shown again.
            soon("the cut", harness.cut()).await;
        }
        // It may be lost; then the message comes again, and nothing else is asked here.
        let _ = soon("settling", delivery.settle(Settlement::Ack)).await;
    }
}

/// What is closed is closed.
pub async fn a_closed_connection_publishes_and_declares_nothing<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    soon("closing", stage.connection.close()).await;
    let publication = Publication::new(stage.event("a"), Message::new("late"));
    let published = soon("publishing", stage.connection.publish(publication)).await;
    assert!(matches!(published, Err(PublishError::Closed)), "not closed, but {published:?}");
    let declared = soon("declaring", stage.connection.declare(&queue)).await;
    let error = declared.expect_err("a closed connection declares nothing");
    assert_eq!(error.kind(), TransportErrorKind::Closed, "{error}");
    let consumed = soon("starting to consume", stage.connection.consume(&queue, 1)).await;
    let error = consumed.map(drop).expect_err("a closed connection consumes nothing");
    assert_eq!(error.kind(), TransportErrorKind::Closed, "{error}");
}

/// Who waits for a delivery learns that there will be none.
pub async fn a_closed_connection_ends_its_consumers<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let mut inbox = stage.inbox(&queue).await;
    let waiting = async { inbox.ends().await };
    let closing = async { soon("closing", stage.connection.close()).await };
    tokio::join!(waiting, closing);
    inbox.ends().await;
}

/// What a health page is made of.
pub async fn a_connection_says_that_it_is_up_and_that_it_was_closed<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &["#"]).await;
    let inbox = stage.inbox(&queue).await;
    let all_up = || stage.connection.status().iter().all(|(_, status)| status.is_up());
    assert!(!stage.connection.status().is_empty() && all_up(), "{:?}", stage.connection.status());
    assert!(inbox.0.status().status().is_up());
    soon("the cut", harness.cut()).await;
    stage.publish("a", "any").await;
    eventually("a mended connection", async || all_up() && inbox.0.status().status().is_up()).await;
    soon("closing", stage.connection.close()).await;
    assert!(stage.connection.status().iter().all(|(_, status)| status.is_down()));
}

/// A drain and an owner may both close.
pub async fn closing_twice_is_fine<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    soon("closing", stage.connection.close()).await;
    soon("closing", stage.connection.close()).await;
}
