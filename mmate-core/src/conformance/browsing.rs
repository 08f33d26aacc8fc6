//! Looking through a queue: what is not taken stays as it was.

use super::Harness;
use super::stage::{Stage, declare, settle, soon, text};
use crate::message::Message;
use crate::transport::{Browser, Changes, Delivery, QueuePlan, Settlement, TransportErrorKind};

/// More than two pages, and more than a broker keeps in order by chance.
const COUNT: usize = 100;
const PAGE: u16 = 30;

async fn filled<H: Harness>(stage: &Stage<'_, H>, name: &str) -> QueuePlan {
    let queue = stage.queue(name, &[]).await;
    for n in 0..COUNT {
        stage.put(&queue, Message::new(n.to_string())).await;
    }
    stage.until_ready(&queue, COUNT).await;
    queue
}

async fn browse<H: Harness>(stage: &Stage<'_, H>, queue: &QueuePlan) -> Box<dyn Browser> {
    let opening = soon("browsing", stage.connection.browse(&queue.name, PAGE)).await;
    opening.expect("the queue is browsed")
}

async fn look(browser: &mut Box<dyn Browser>) -> Option<Delivery> {
    soon("looking", browser.next()).await.expect("the browser is well")
}

/// Looks at so many, which must be there, and takes none.
async fn look_at(browser: &mut Box<dyn Browser>, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(text(&look(browser).await.expect("there is another one")));
    }
    texts
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Reads a queue empty.
async fn rest<H: Harness>(stage: &Stage<'_, H>, queue: &QueuePlan) -> Vec<String> {
    stage.put(queue, Message::new("end")).await;
    stage.inbox(queue).await.read_until("end").await
}

/// Any number of looks, and the queue is as it was.
pub async fn what_is_looked_at_goes_back_in_its_order<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = filled(&stage, "q").await;
    for count in [3, COUNT, usize::from(PAGE) + 1] {
        let mut browser = browse(&stage, &queue).await;
        assert_eq!(look_at(&mut browser, count).await, numbers(0..count));
        soon("closing a browser", browser.close()).await;
        stage.until_ready(&queue, COUNT).await;
    }
    assert_eq!(rest(&stage, &queue).await, numbers(0..COUNT));
}

/// What comes while somebody looks is for the next look, or looking would never end.
pub async fn a_browser_sees_what_was_there_and_ends<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = filled(&stage, "q").await;
    let mut browser = browse(&stage, &queue).await;
    look_at(&mut browser, 1).await;
    stage.put(&queue, Message::new("late")).await;
    look_at(&mut browser, COUNT - 1).await;
    assert!(look(&mut browser).await.is_none());
    assert!(look(&mut browser).await.is_none());
    soon("closing a browser", browser.close()).await;
    assert_eq!(rest(&stage, &queue).await.len(), COUNT + 1);
}

/// An empty queue is looked through at once.
pub async fn an_empty_queue_has_nothing_to_look_at<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("q", &[]).await;
    assert!(look(&mut browse(&stage, &queue).await).await.is_none());
}

/// Taking some of a page makes room for more, and the others keep their order.
pub async fn what_is_taken_leaves_and_the_rest_keeps_its_order<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = filled(&stage, "q").await;
    let mut browser = browse(&stage, &queue).await;
    for n in 0..COUNT {
        let delivery = look(&mut browser).await.expect("there is another one");
        assert_eq!(text(&delivery), n.to_string());
        match n % 3 {
            0 => settle(delivery, Settlement::Ack).await,
            1 => settle(delivery, Settlement::Requeue).await,
            _ => drop(delivery),
        }
    }
    soon("closing a browser", browser.close()).await;
    let kept: Vec<_> = (0..COUNT).filter(|n| n % 3 != 0).map(|n| n.to_string()).collect();
    assert_eq!(rest(&stage, &queue).await, kept);
}

/// A moved message is the same one, but for what shall be other.
pub async fn a_moved_message_goes_to_the_named_queue_with_its_changes<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (from, to) = (stage.queue("from", &[]).await, stage.queue("to", &["#"]).await);
    let mut message = Message::new("old");
    message.properties.message_id = Some("old-id".to_owned());
    message.properties.content_type = Some("text/plain".to_owned());
    for name in ["kept", "changed", "dropped"] {
        message.headers.insert(name, "old");
    }
    stage.put(&from, message).await;
    stage.until_ready(&from, 1).await;

    let unset = vec!["dropped".to_owned(), "never-there".to_owned()];
    let mut changes = Changes { unset, ..Changes::default() };
    changes.set.insert("changed", "new");
    changes.set.insert("added", 7_i64);
    changes.message_id = Some("new-id".to_owned());
    changes.body = Some("new".into());
    let mut browser = browse(&stage, &from).await;
    let delivery = look(&mut browser).await.expect("it is there");
    let changes = Box::new(changes);
    settle(delivery, Settlement::Move { to: to.name.clone(), changes }).await;
    soon("closing a browser", browser.close()).await;

    assert_eq!(rest(&stage, &from).await, [""; 0]);
    let moved = stage.inbox(&to).await.next().await;
    assert_eq!(text(&moved), "new");
    assert_eq!(moved.message.properties.message_id.as_deref(), Some("new-id"));
    assert_eq!(moved.message.properties.content_type.as_deref(), Some("text/plain"));
    let headers = &moved.message.headers;
    assert_eq!(headers.text("kept"), Some("old"));
    assert_eq!(headers.text("changed"), Some("new"));
    assert_eq!(headers.int("added"), Some(7));
    assert!(!headers.contains("dropped"));
    assert!(!moved.redelivered, "the copy has not been shown before");
}

/// Nobody takes the copy, so the original stays.
pub async fn a_message_that_cannot_be_moved_stays<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = filled(&stage, "q").await;
    let mut browser = browse(&stage, &queue).await;
    let delivery = look(&mut browser).await.expect("it is there");
    let (to, changes) = (stage.name("nowhere"), Box::default());
    let settled = soon("settling", delivery.settle(Settlement::Move { to, changes })).await;
    assert!(settled.is_lost());
    assert_eq!(look_at(&mut browser, 1).await, ["1"], "the browser goes on");
    soon("closing a browser", browser.close()).await;
    assert_eq!(rest(&stage, &queue).await, numbers(0..COUNT));
}

/// A process that dies in the middle has taken nothing.
pub async fn a_cut_ends_the_browser_and_takes_nothing<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = filled(&stage, "q").await;
    let mut browser = browse(&stage, &queue).await;
    let delivery = look(&mut browser).await.expect("it is there");
    look_at(&mut browser, 9).await;
    harness.cut().await;
    let ended = soon("the end of a browser", async {
        loop {
            match browser.next().await {
                // Fetched before the cut, and not known to be lost yet.
                Ok(Some(_)) => {}
                other => return other.map(drop),
            }
        }
    });
    assert!(ended.await.is_err(), "it does not look as if all had been seen");
    assert!(soon("settling", delivery.settle(Settlement::Ack)).await.is_lost());
    soon("closing a browser", browser.close()).await;
    let after = stage.connect().await;
    let mut browser = soon("browsing", after.browse(&queue.name, PAGE)).await.expect("it opens");
    let mut all = look_at(&mut browser, COUNT).await;
    all.sort_by_key(|n| n.parse::<usize>().ok());
    assert_eq!(all, numbers(0..COUNT));
}

/// Forgetting to close costs nothing but time.
pub async fn a_dropped_browser_gives_back<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = filled(&stage, "q").await;
    let mut browser = browse(&stage, &queue).await;
    look_at(&mut browser, 40).await;
    drop(browser);
    stage.until_ready(&queue, COUNT).await;
    assert_eq!(rest(&stage, &queue).await, numbers(0..COUNT));
}

/// And the connection stays usable.
pub async fn a_missing_queue_is_not_found_when_it_is_browsed<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let name = stage.name("missing");
    let opened = soon("browsing", stage.connection.browse(&name, PAGE)).await;
    let error = opened.map(drop).expect_err("there is nothing to browse");
    assert_eq!(error.kind(), TransportErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(&name), "{error}");
    declare(&*stage.connection, &stage.plan("q", &[])).await;
}
