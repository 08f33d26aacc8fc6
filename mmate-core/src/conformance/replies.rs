//! Where replies go, and what becomes of a request whose reply nobody takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Harness;
use super::requests::{dead_letter, double, publish, queries, query, start};
use super::service::{queue_of, stop};
use super::stage::{Stage, ack, eventually};
use crate::handler::Json;
use crate::message::wire;
use crate::outcome::HandlerError;
use crate::reply::{LostReplies, Reply, ReplyError};
use crate::service::Running;
use crate::transport::Delivery;

/// Publishes a query in the name of a requester that has ended.
async fn ask_as_a_ghost<H: Harness>(stage: &Stage<'_, H>, by: &Running) {
    publish(by, query(stage, 1).reply_to(stage.name("gone.replies.1"))).await;
}

/// Counts its runs, and answers.
fn counting(
    runs: &Arc<AtomicU64>,
) -> impl Fn() -> std::future::Ready<Result<Reply<u64>, HandlerError>> + Send + Sync + 'static + use<>
{
    let runs = Arc::clone(runs);
    move || {
        runs.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(Reply(1)))
    }
}

fn reason(delivery: &Delivery) -> Option<&str> {
    delivery.message.headers.text(wire::REASON)
}

/// F29: it is not acknowledged as if it had been answered, and not handled for ever either.
pub async fn a_request_whose_requester_is_gone_is_dead_lettered_once<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let runs = Arc::<AtomicU64>::default();
    let running = start(&stage, queries(&stage).handler(counting(&runs))).await;
    ask_as_a_ghost(&stage, &running).await;
    assert_eq!(reason(&dead_letter(&stage).await), Some("unanswerable"));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let counts = running.stats().total();
    assert_eq!((counts.fetched, counts.dead_lettered, counts.replies_lost), (1, 1, 1));
    stop(running).await;
}

/// F29, for handlers that may run any number of times.
pub async fn a_lost_reply_may_be_retried_until_the_attempts_are_used_up<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let runs = Arc::<AtomicU64>::default();
    let retrying = queries(&stage).lost_replies(LostReplies::Retry);
    let running = start(&stage, retrying.handler(counting(&runs))).await;
    ask_as_a_ghost(&stage, &running).await;
    assert_eq!(reason(&dead_letter(&stage).await), Some("attempts-exhausted"));
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    let counts = running.stats().total();
    assert_eq!((counts.retried, counts.dead_lettered, counts.replies_lost), (2, 1, 3));
    stop(running).await;
}

/// F29, if nobody misses it.
pub async fn a_lost_reply_may_be_dropped<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let runs = Arc::<AtomicU64>::default();
    let dropping = queries(&stage).lost_replies(LostReplies::Drop);
    let running = start(&stage, dropping.handler(counting(&runs))).await;
    ask_as_a_ghost(&stage, &running).await;
    eventually("the counting of a success", || async {
        let counts = running.stats().total();
        (counts.fetched, counts.succeeded, counts.replies_lost) == (1, 1, 1)
    })
    .await;
    stop(running).await;
}

/// A stranger must not have us write into any queue there is.
pub async fn a_reply_address_that_is_not_allowed_is_malformed_and_nothing_runs<H: Harness>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let victim = stage.queue("victim", &[]).await;
    let runs = Arc::<AtomicU64>::default();
    let running = start(&stage, queries(&stage).handler(counting(&runs))).await;
    let own = queue_of(&stage).name;
    let mut letters = stage.dead_letters(&queue_of(&stage)).await;
    for address in [victim.name.as_str(), &own, &wire::dead_letter_queue(&own), "amq.gen-1"] {
        publish(&running, query(&stage, 1).reply_to(address)).await;
        let letter = letters.next().await;
        assert_eq!(reason(&letter), Some("malformed"), "{address}");
        let error = letter.message.headers.text(wire::ERROR).unwrap_or_default();
        assert!(error.contains(address), "{error:?} names {address}");
        ack(letter).await;
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    assert_eq!(running.stats().total().replied, 0);
    stop(running).await;
    stage.until_ready(&victim, 0).await;
}

/// Others have other conventions.
pub async fn a_further_reply_address_can_be_allowed<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let answers = stage.queue("answers", &[]).await;
    let allowing = queries(&stage).allow_replies_to([stage.name("ans*")]);
    let running = start(&stage, allowing.handler(double)).await;
    publish(&running, query(&stage, 1).reply_to(&answers.name)).await;
    let reply = stage.inbox(&answers).await.next().await;
    assert_eq!(reply.message.headers.text(wire::SUCCESS), Some("true"));
    stop(running).await;
}

/// Who does not ask is not answered; then a failure that would be an answer is a dead letter.
pub async fn a_message_that_nobody_waits_for_is_handled_without_a_reply<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let handler = |Json(number): Json<u64>| async move {
        match number {
            1 => Ok(Reply(number)),
            _ => Err(HandlerError::from(ReplyError::new("too-large", "no"))),
        }
    };
    let running = start(&stage, queries(&stage).handler(handler)).await;
    publish(&running, query(&stage, 1)).await;
    publish(&running, query(&stage, 2)).await;
    let letter = dead_letter(&stage).await;
    assert_eq!(reason(&letter), Some("permanent"));
    eventually("the counting of a success", || async { running.stats().total().succeeded == 1 })
        .await;
    assert_eq!(running.stats().total().replied, 0);
    stop(running).await;
}
