//! Requests that come again: the stored reply.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::message::{Message, wire};
use mmate_core::transport::{Consumer, QueuePlan, Settlement};
use mmate_core::{
    Answer, Connection, Envelope, Outcome, Outgoing, ReplyError, RequestError, Running,
    Subscription, Transport,
};
use serde_json::{Value, json};

use crate::databases::By;
use crate::house::{House, Phase, Script, counts_when, ended, everywhere, script, stop};

everywhere! {
    a_duplicate_request_gets_the_stored_reply_marked_as_replayed,
    whoever_asks_is_told_that_it_was_answered_before,
    another_instance_answers_from_the_record,
    a_request_is_the_same_whoever_asks_and_wherever_the_reply_goes,
    copies_of_a_request_while_it_is_handled_all_get_the_same_reply,
    an_error_reply_is_replayed_where_it_was_recorded,
    a_reply_that_is_too_large_is_sent_and_not_kept,
    of_a_message_that_nobody_waits_for_nothing_is_kept,
}

/// Answers with the number of the run.
fn numbered() -> Script {
    let runs = Arc::new(std::sync::atomic::AtomicU64::new(0));
    script(move |visit| {
        let runs = Arc::clone(&runs);
        async move {
            Ok(match visit.phase {
                Phase::BeforeEffect => Outcome::Done,
                Phase::AfterEffect => {
                    let run = runs.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                    Outcome::Answered(Answer::success(&json!({"run": run})).unwrap())
                }
            })
        }
    })
}

/// A queue that plays the requester, so that a case sees the bare replies.
struct Inbox {
    name: String,
    #[expect(dead_code, reason = "it is held open")]
    connection: Box<dyn Connection>,
    consumer: Box<dyn Consumer>,
}

impl Inbox {
    async fn open(house: &House) -> Self {
        let name = format!("{}.replies.1", mmate_test_support::unique("asks"));
        let connection = house.broker.connect("asks").await.unwrap();
        let plan = QueuePlan::for_replies(&name, Duration::from_secs(60));
        connection.declare(&plan).await.unwrap();
        let consumer = connection.consume(&plan, 10.try_into().unwrap()).await.unwrap();
        Self { name, connection, consumer }
    }

    async fn next(&mut self) -> Message {
        let next = tokio::time::timeout(Duration::from_secs(30), self.consumer.next());
        let delivery = next.await.unwrap().unwrap().unwrap();
        let message = delivery.message.clone();
        let _ = delivery.settle(Settlement::Ack).await;
        message
    }
}

fn payload(message: &Message) -> Value {
    Envelope::from_json(message.body.clone()).unwrap().payload().unwrap()
}

fn is_replayed(message: &Message) -> bool {
    message.headers.value(wire::REPLAYED).is_some()
}

async fn ask(running: &Running, house: &House, inbox: &Inbox, id: &str) {
    let question = house.message(id).reply_to(&inbox.name);
    running.publisher().publish(question).await.unwrap();
}

/// S52
async fn a_duplicate_request_gets_the_stored_reply_marked_as_replayed(house: House) {
    let running = house.instance(numbered()).await;
    let mut inbox = Inbox::open(&house).await;
    ask(&running, &house, &inbox, "q-1").await;
    let first = inbox.next().await;
    assert!(!is_replayed(&first));
    for _ in 0..2 {
        ask(&running, &house, &inbox, "q-1").await;
        let again = inbox.next().await;
        assert!(is_replayed(&again));
        assert_eq!(payload(&again), json!({"success": true, "run": 1}));
        assert_eq!(payload(&again), payload(&first));
        for property in [
            |of: &Message| of.properties.correlation_id.clone(),
            |of: &Message| of.properties.message_id.clone(),
            |of: &Message| of.properties.message_type.clone(),
        ] {
            assert!(property(&first).is_some());
            assert_eq!(property(&first), property(&again));
        }
    }
    assert_eq!(house.effects_of("q-1").await, 1);
    let counts = counts_when(&[&running], |counts| ended(counts) == 3).await;
    assert_eq!((counts.succeeded, counts.duplicates.total(), counts.replied), (1, 2, 3));
    stop([running]).await;
}

/// S52
async fn whoever_asks_is_told_that_it_was_answered_before(house: House) {
    let running = house.instance(numbered()).await;
    let ask = || running.publisher().request::<Value>(house.message("q-1")).reply();
    let first = ask().await.unwrap();
    let again = ask().await.unwrap();
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!(first.value, again.value);
    stop([running]).await;
}

/// S6, S52: whoever handled it has gone, with the reply.
async fn another_instance_answers_from_the_record(house: House) {
    let first = house.instance(numbered()).await;
    let question = || house.message("q-1");
    let answer: Value = first.publisher().request(question()).await.unwrap();
    stop([first]).await;
    let second = house.instance(script(async |_| panic!("it is not handled again"))).await;
    let again: Value = second.publisher().request(question()).await.unwrap();
    assert_eq!((&answer, &again), (&json!({"success": true, "run": 1}), &answer));
    assert_eq!(house.effects_of("q-1").await, 1);
    stop([second]).await;
}

/// S33, S52: the reply address stands in the payload too, and is no part of what is asked.
async fn a_request_is_the_same_whoever_asks_and_wherever_the_reply_goes(house: House) {
    let (mut one, mut other) = (Inbox::open(&house).await, Inbox::open(&house).await);
    let copying = |mmate_core::Json(of): mmate_core::Json<Value>| async move {
        Ok::<_, mmate_core::HandlerError>(mmate_core::Reply(json!({"of": of["text"]})))
    };
    let builder = Subscription::per_service("objects", [format!("object.{}.eu", house.service)]);
    let subscription = house.guarded(builder, By::default()).await.handler(copying);
    let service = mmate_core::Service::new(house.service.as_str()).subscribe(subscription);
    let running = service.start(house.broker.clone()).await.unwrap();
    for (inbox, replayed) in [(&mut one, false), (&mut other, true)] {
        let topic = format!("object.{}.eu", house.service);
        let question = Outgoing::event(topic, "Object", &json!({"text": "book"}))
            .id_text("q-2")
            .reply_to(&inbox.name);
        running.publisher().publish(question).await.unwrap();
        let reply = inbox.next().await;
        assert_eq!(payload(&reply), json!({"success": true, "of": "book"}));
        assert_eq!(is_replayed(&reply), replayed);
    }
    stop([running]).await;
}

/// S3, S52
async fn copies_of_a_request_while_it_is_handled_all_get_the_same_reply(house: House) {
    let answers = numbered();
    let slowly = script(move |visit: crate::house::Visit| {
        let answers = Arc::clone(&answers);
        async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            answers(visit).await
        }
    });
    let running = [house.instance(Arc::clone(&slowly)).await, house.instance(slowly).await];
    let mut inbox = Inbox::open(&house).await;
    for _ in 0..8 {
        ask(&running[0], &house, &inbox, "q-1").await;
    }
    let mut replayed = 0;
    for _ in 0..8 {
        let reply = inbox.next().await;
        assert_eq!(payload(&reply)["run"], 1);
        replayed += usize::from(is_replayed(&reply));
    }
    assert_eq!((replayed, house.effects_of("q-1").await), (7, 1));
    stop(running).await;
}

/// S52: `Tracked` records that it was answered with a failure. `Transactional` rolls back and has
/// no record, so the copy is handled again.
async fn an_error_reply_is_replayed_where_it_was_recorded(house: House) {
    let runs = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let declining = script(move |_| {
        let run = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        async move {
            let error = ReplyError::new("declined", "no money").details(&run);
            Ok(Outcome::Answered(Answer::failure(&error)))
        }
    });
    let running = house.instance(declining).await;
    let handled = if house.kind.is_transactional() { 2 } else { 1 };
    for last in [1, handled] {
        let answer = running.publisher().request::<Value>(house.message("q-1")).await;
        let Err(RequestError::Failed(error)) = answer else { panic!("{answer:?}") };
        assert_eq!((error.code.as_str(), error.details), ("declined", Some(json!(last))));
    }
    assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), handled);
    stop([running]).await;
}

/// A copy of its request is acknowledged without an answer.
async fn a_reply_that_is_too_large_is_sent_and_not_kept(house: House) {
    let sized = script(async |visit| match visit.phase {
        Phase::BeforeEffect => Ok(Outcome::Done),
        Phase::AfterEffect => {
            // Two quotes belong to it.
            let bytes = visit.id.rsplit('-').next().unwrap().parse::<usize>().unwrap() - 2;
            Ok(Outcome::Answered(Answer::success(&"x".repeat(bytes)).unwrap()))
        }
    });
    let by = By { reply_limit: Some(100), ..By::default() };
    let guarded = house.guard_with(house.builder(), sized, by, |tracked| tracked);
    let service = mmate_core::Service::new(house.service.as_str()).subscribe(guarded.await);
    let running = service.start(house.broker.clone()).await.unwrap();
    let ask = async |id: &str| {
        let question = running.publisher().request::<String>(house.message(id));
        question.timeout(Duration::from_secs(2)).await
    };
    for id in ["q-100", "q-101"] {
        assert!(ask(id).await.is_ok());
    }
    assert_eq!(ask("q-100").await.unwrap().len(), 98);
    assert!(matches!(ask("q-101").await, Err(RequestError::Timeout { published: true, .. })));
    assert_eq!(house.effects().await.len(), 2);
    stop([running]).await;
}

async fn of_a_message_that_nobody_waits_for_nothing_is_kept(house: House) {
    let running = house.instance(numbered()).await;
    house.publish(running.publisher(), "q-1").await;
    counts_when(&[&running], |counts| ended(counts) == 1).await;
    // Otherwise a copy that names an address would be answered.
    let mut inbox = Inbox::open(&house).await;
    ask(&running, &house, &inbox, "q-1").await;
    ask(&running, &house, &inbox, "q-2").await;
    let reply = inbox.next().await;
    assert_eq!((is_replayed(&reply), &payload(&reply)["run"]), (false, &json!(2)));
    stop([running]).await;
}
