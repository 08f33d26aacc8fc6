//! Requests and replies between services.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Barrier;

use super::Harness;
use super::service::{Heard, RETRY_DELAY, queue_of, stop};
use super::stage::{Stage, ack, declare, eventually, soon};
use crate::handler::{Attempt, Json};
use crate::message::{Envelope, MessageKind, Meta, Outgoing, wire};
use crate::outcome::{HandlerError, Permanent};
use crate::publisher::Publisher;
use crate::reply::{Reply, ReplyError};
use crate::request::RequestError;
use crate::service::{Running, Service};
use crate::subscription::{RetryPolicy, Subscription, SubscriptionBuilder};
use crate::transport::{Delivery, QueuePlan};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Doubled {
    number: u64,
    twice: u64,
}

pub(super) async fn double(Json(number): Json<u64>) -> Result<Reply<Doubled>, HandlerError> {
    Ok(Reply(Doubled { number, twice: number * 2 }))
}

/// A subscription to the stage's own type of query.
pub(super) fn queries<H: Harness>(stage: &Stage<'_, H>) -> SubscriptionBuilder {
    let three = RetryPolicy::fixed(RETRY_DELAY).max_attempts(3);
    Subscription::queries("q", [stage.name("Query")]).retry(three)
}

pub(super) fn query<H: Harness>(stage: &Stage<'_, H>, number: u64) -> Outgoing {
    Outgoing::query(stage.name("Query"), &number)
}

pub(super) async fn start<H: Harness>(stage: &Stage<'_, H>, subscription: Subscription) -> Running {
    let service = Service::new(stage.name("service")).subscribe(subscription);
    let starting = service.start(stage.harness.transport());
    soon("starting the service", starting).await.expect("the service starts")
}

/// A process that only asks.
async fn requester<H: Harness>(stage: &Stage<'_, H>) -> Publisher {
    let transport = stage.harness.transport();
    soon("connecting", Publisher::connect(&transport, stage.name("asking")))
        .await
        .expect("the transport connects")
}

async fn ask(by: &Publisher, question: Outgoing) -> Result<Doubled, RequestError> {
    soon("a reply", by.request(question).into_future()).await
}

/// A queue that plays the requester, so that a case sees the bare replies.
async fn reply_queue<H: Harness>(stage: &Stage<'_, H>) -> QueuePlan {
    let plan = QueuePlan::for_replies(stage.name("x.replies.1"), Duration::from_secs(60));
    declare(&*stage.connection, &plan).await;
    plan
}

pub(super) async fn publish(by: &Running, message: Outgoing) {
    soon("publishing", by.publisher().publish(message)).await.expect("the message is published");
}

pub(super) async fn dead_letter<H: Harness>(stage: &Stage<'_, H>) -> Delivery {
    stage.dead_letters(&queue_of(stage)).await.next().await
}

fn failed(result: Result<Doubled, RequestError>) -> crate::request::ErrorReply {
    match result {
        Err(RequestError::Failed(error)) => error,
        other => panic!("an error reply was to come, and not {other:?}"),
    }
}

/// The reply has the type that the requester asks for.
pub async fn a_request_is_answered_with_what_the_handler_returns<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let running = start(&stage, queries(&stage).handler(double)).await;
    let asking = requester(&stage).await;
    let reply = ask(&asking, query(&stage, u64::MAX / 2)).await.expect("a reply");
    assert_eq!(reply, Doubled { number: u64::MAX / 2, twice: u64::MAX - 1 });
    // A service may ask itself.
    let reply = ask(running.publisher(), query(&stage, 4)).await.expect("a reply");
    assert_eq!(reply.twice, 8);
    // The reply comes first, and then the acknowledgement.
    eventually("the counting of two replies", || async {
        let counts = running.stats().total();
        (counts.replied, counts.succeeded, counts.replies_lost) == (2, 2, 0)
    })
    .await;
    asking.close().await;
    stop(running).await;
}

/// On one connection, in any order.
pub async fn many_requests_at_a_time_each_get_their_own_reply<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let odd = |Json(number): Json<u64>| async move {
        tokio::time::sleep(Duration::from_millis(number * 7 % 20)).await;
        Ok::<_, HandlerError>(Reply(Doubled { number, twice: number * 2 }))
    };
    let running = start(&stage, queries(&stage).concurrency(50).handler(odd)).await;
    let asking = requester(&stage).await;
    let requests = (0..200_u64).map(|number| {
        let (asking, question) = (asking.clone(), query(&stage, number));
        async move {
            let reply = ask(&asking, question).await.expect("a reply");
            assert_eq!(reply, Doubled { number, twice: number * 2 });
        }
    });
    futures_util::future::join_all(requests).await;
    assert_eq!(asking.requests_waiting(), 0);
    asking.close().await;
    stop(running).await;
}

/// S28: what any implementation needs to match it, and an id that a second run repeats.
pub async fn a_reply_says_whose_reply_it_is<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let replies = reply_queue(&stage).await;
    let mut inbox = stage.inbox(&replies).await;
    let running = start(&stage, queries(&stage).handler(double)).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let question = query(&stage, 1).id_text("the-request").reply_to(&replies.name);
        publish(&running, question).await;
        let reply = inbox.next().await;
        let (properties, headers) = (&reply.message.properties, &reply.message.headers);
        assert_eq!(properties.correlation_id.as_deref(), Some("the-request"));
        assert_eq!(headers.text(wire::MESSAGE_KIND), Some(MessageKind::Reply.as_str()));
        assert_eq!(headers.text(wire::SUCCESS), Some("true"));
        let message_type = format!("{}Reply", stage.name("Query"));
        assert_eq!(properties.message_type.as_deref(), Some(message_type.as_str()));
        let envelope = Envelope::from_json(reply.message.body.clone()).expect("an envelope");
        assert_eq!(envelope.causation_id.as_ref().map(|id| id.as_str()), Some("the-request"));
        assert_eq!(&envelope.raw_payload()[..], br#"{"success":true,"number":1,"twice":2}"#);
        ids.push(envelope.id);
        ack(reply).await;
    }
    assert_eq!(ids[0], ids[1]);
    stop(running).await;
}

/// A request's correlation id is its own, since replies are matched by it; the conversation goes on
/// all the same.
pub async fn what_is_published_for_a_request_belongs_to_its_conversation<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let outbound = stage.queue("outbound", &["out"]).await;
    let topic = stage.name("out");
    let answers = move |meta: Meta, publisher: Publisher| {
        let (say, topic) = (say.clone(), topic.clone());
        async move {
            publisher.publish(Outgoing::event(topic, "Out", &1)).await?;
            let _ = say.send((meta.id, meta.correlation_id));
            Ok::<_, HandlerError>(Reply(Doubled { number: 0, twice: 0 }))
        }
    };
    let running = start(&stage, queries(&stage).handler(answers)).await;
    let conversation = "the-conversation".parse().expect("an id");
    ask(running.publisher(), query(&stage, 1).correlation_id(conversation)).await.expect("a reply");
    let (id, correlation) = heard.next().await;
    assert_eq!(id.map(|id| id.to_string()), correlation.map(|id| id.to_string()));
    let out = stage.inbox(&outbound).await.next().await;
    assert_eq!(out.message.properties.correlation_id.as_deref(), Some("the-conversation"));
    stop(running).await;
}

/// At once, not after the timeout.
pub async fn a_request_that_nobody_takes_is_unroutable<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let asking = requester(&stage).await;
    let error = ask(&asking, query(&stage, 1)).await.expect_err("nobody answers");
    assert!(matches!(error, RequestError::Unroutable { .. }), "{error:?}");
    assert_eq!(asking.requests_waiting(), 0);
    asking.close().await;
}

/// Neither a timeout nor a future that is dropped keeps a place in the table.
pub async fn a_request_that_is_not_answered_times_out_and_leaves_nothing_behind<H: Harness>(
    harness: &H,
) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("deaf", &[]).await;
    let asking = requester(&stage).await;
    let question = || Outgoing::to_queue(&queue.name, "Question", &1);
    let dropped = tokio::spawn(asking.request::<Doubled>(question()).into_future());
    eventually("a waiting request", || async { asking.requests_waiting() == 1 }).await;
    dropped.abort();
    eventually("the end of its waiting", || async { asking.requests_waiting() == 0 }).await;

    // Long enough to be published on a busy machine.
    let short = asking.request::<Doubled>(question()).timeout(Duration::from_secs(3));
    let error = soon("the timeout", short.into_future()).await.expect_err("nobody answers");
    assert!(matches!(error, RequestError::Timeout { published: true, .. }), "{error:?}");
    assert_eq!(asking.requests_waiting(), 0);
    asking.close().await;
}

/// A business failure is no failure of the handling.
pub async fn a_failure_that_is_an_answer_is_told_and_not_retried<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let handler = |Json(number): Json<u64>| async move {
        let error = ReplyError::new("too-large", "only small numbers are doubled here");
        Err::<Reply<Doubled>, _>(error.details(&serde_json::json!({"number": number})))
    };
    let running = start(&stage, queries(&stage).handler(handler)).await;
    let error = failed(ask(running.publisher(), query(&stage, 7)).await);
    assert_eq!(error.code, "too-large");
    assert_eq!(error.message, "only small numbers are doubled here");
    assert_eq!(error.details, Some(serde_json::json!({"number": 7})));
    eventually("the counting of a success", || async {
        let counts = running.stats().total();
        (counts.fetched, counts.succeeded, counts.replied) == (1, 1, 1)
    })
    .await;
    stop(running).await;
    stage.until_ready(&queue_of(&stage), 0).await;
}

/// While another attempt may succeed there is nothing to tell; and an error's text is not for
/// strangers.
pub async fn a_failed_request_is_answered_only_after_its_last_attempt<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let handler = |Json(number): Json<u64>, Attempt(attempt): Attempt| async move {
        match number {
            1 if attempt == 3 => Ok(Reply(Doubled { number, twice: 2 })),
            3 => Err("the secret is out").permanent(),
            _ => Err(HandlerError::retryable("the secret is out")),
        }
    };
    let running = start(&stage, queries(&stage).handler(handler)).await;
    assert_eq!(ask(running.publisher(), query(&stage, 1)).await.expect("a reply").twice, 2);
    for (number, code) in [(2, "attempts-exhausted"), (3, "permanent")] {
        let error = failed(ask(running.publisher(), query(&stage, number)).await);
        assert_eq!(error.code, code);
        assert!(!error.message.contains("secret"), "{}", error.message);
    }
    eventually("the counting of two dead letters", || async {
        let counts = running.stats().total();
        (counts.replied, counts.dead_lettered, counts.retried) == (3, 2, 4)
    })
    .await;
    stop(running).await;
}

/// The requester learns that it speaks another language.
pub async fn an_undecodable_request_is_told_so<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let running = start(&stage, queries(&stage).handler(double)).await;
    let question = Outgoing::query(stage.name("Query"), "seven");
    assert_eq!(failed(ask(running.publisher(), question).await).code, "undecodable");

    let number = Subscription::queries("n", [stage.name("Number")]);
    let number = number.handler(|| async { Ok::<_, HandlerError>(Reply(7)) });
    let other = Service::new(stage.name("other")).subscribe(number);
    let other = other.start(stage.harness.transport()).await.expect("the service starts");
    let question = Outgoing::query(stage.name("Number"), &());
    let error = ask(other.publisher(), question).await.expect_err("a number is no struct");
    assert!(matches!(error, RequestError::Undecodable(_)), "{error:?}");
    stop(other).await;
    stop(running).await;
}

/// The reply address outlives the connection that it was made on.
pub async fn a_reply_survives_a_cut<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let both = Arc::new(Barrier::new(2));
    let handler = {
        let both = Arc::clone(&both);
        move |Json(number): Json<u64>| {
            let (say, both) = (say.clone(), Arc::clone(&both));
            let _ = say.send(number);
            async move {
                both.wait().await;
                Ok::<_, HandlerError>(Reply(Doubled { number, twice: number * 2 }))
            }
        }
    };
    let running = start(&stage, queries(&stage).handler(handler)).await;
    let asking = requester(&stage).await;
    let request = tokio::spawn(asking.request::<Doubled>(query(&stage, 3)).into_future());
    assert_eq!(heard.next().await, 3);
    soon("the cut", harness.cut()).await;
    // The lost delivery comes a second time, to the handler that is at work.
    both.wait().await;
    let reply = soon("the reply", request).await.expect("the task goes on").expect("a reply");
    assert_eq!(reply.twice, 6);
    asking.close().await;
    drop(running);
}

/// Nobody waits for a reply that cannot come.
pub async fn a_closed_connection_ends_the_waiting<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let queue = stage.queue("deaf", &[]).await;
    let asking = requester(&stage).await;
    let question = || Outgoing::to_queue(&queue.name, "Question", &1);
    let request = tokio::spawn(asking.request::<Doubled>(question()).into_future());
    stage.until_ready(&queue, 1).await;
    soon("closing", asking.close()).await;
    let error = soon("the end of the request", request).await.expect("the task goes on");
    assert!(matches!(error, Err(RequestError::Closed)), "{error:?}");
    let error = ask(&asking, question()).await;
    assert!(matches!(error, Err(RequestError::Closed)), "{error:?}");
}
