//! Replies and middleware.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mmate_core::message::wire;
use mmate_core::transport::QueuePlan;
use mmate_core::{
    Answer, Context, DeadLetters, Duplicate, DuplicateReason, HandlerError, Idempotency, InProcess,
    Json, Middleware, Next, Outcome, Outgoing, Reply, Service, Subscription, Transport,
};

/// Keeps what each request was answered, as a store could: in its two parts.
#[derive(Default)]
struct Keeps(Mutex<HashMap<String, (bool, Vec<u8>)>>);

#[async_trait]
impl Middleware for Keeps {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let id = context.message_id().unwrap().to_string();
        let kept = self.0.lock().unwrap().get(&id).cloned();
        if let Some((success, payload)) = kept {
            let duplicate = Duplicate::new(DuplicateReason::Republished, None);
            return Ok(Outcome::Duplicate(duplicate.answered(Answer::kept(success, payload))));
        }
        let outcome = next.run(context).await?;
        if let Outcome::Answered(answer) = &outcome {
            let kept = (answer.is_success(), answer.payload().to_vec());
            self.0.lock().unwrap().insert(id, kept);
        }
        Ok(outcome)
    }
}

impl Idempotency for Keeps {}

/// S2, S28: the copy does not run, and is told the same under the same id.
#[tokio::test(start_paused = true)]
async fn an_answer_that_a_middleware_kept_is_sent_again_for_a_copy() {
    let (broker, runs) = (InProcess::new(), Arc::new(AtomicU64::new(0)));
    let replies = QueuePlan::for_replies("asking.replies.1", Duration::from_secs(60));
    let asking = broker.connect("asking").await.unwrap();
    asking.declare(&replies).await.unwrap();
    let counting = {
        let runs = Arc::clone(&runs);
        move |Json(number): Json<u64>| {
            let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                Ok::<_, HandlerError>(Reply(serde_json::json!({"twice": number * 2, "run": run})))
            }
        }
    };
    let guarded =
        Subscription::queries("double", ["Double"]).idempotent(Keeps::default()).handler(counting);
    let running = Service::new("math").subscribe(guarded).start(broker.clone()).await.unwrap();
    for _ in 0..2 {
        let question = Outgoing::query("Double", &7).id_text("q-1").reply_to(&replies.name);
        running.publisher().publish(question).await.unwrap();
        broker.idle().await;
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let [first, again] = &*broker.messages(&replies.name) else { panic!("two replies") };
    let replayed = |of: &mmate_core::message::Message| of.headers.value(wire::REPLAYED).is_some();
    assert_eq!((replayed(first), replayed(again)), (false, true));
    for property in [
        |of: &mmate_core::message::Message| of.properties.message_id.clone(),
        |of: &mmate_core::message::Message| of.properties.correlation_id.clone(),
        |of: &mmate_core::message::Message| of.properties.message_type.clone(),
    ] {
        assert_eq!(property(first), property(again));
    }
    let payload = |of: &mmate_core::message::Message| {
        let envelope = mmate_core::Envelope::from_json(of.body.clone()).unwrap();
        envelope.raw_payload().clone()
    };
    assert_eq!(payload(first), payload(again));
    assert!(payload(again).starts_with(br#"{"success":true,"#), "{:?}", payload(again));
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.duplicates.total(), counts.replied), (1, 1, 2));
    running.stop().await.unwrap();
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Strict {
    number: u64,
}

async fn strict(Json(of): Json<Strict>) -> Result<Reply<u64>, HandlerError> {
    Ok(Reply(of.number))
}

/// F29: nobody waits for its reply any more, and it is replayed for its effect.
#[tokio::test(start_paused = true)]
async fn a_dead_request_that_is_replayed_does_not_die_again_of_its_reply() {
    let (broker, runs) = (InProcess::new(), Arc::new(AtomicU64::new(0)));
    let counting = {
        let runs = Arc::clone(&runs);
        move || {
            runs.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, HandlerError>(Reply(1)) }
        }
    };
    let subscription = Subscription::queries("double", ["Double"]).handler(counting);
    let running = Service::new("math").subscribe(subscription).start(broker.clone()).await.unwrap();
    let question = Outgoing::query("Double", &7).reply_to("gone.replies.1");
    running.publisher().publish(question).await.unwrap();
    broker.idle().await;
    assert_eq!(broker.dead_letters("math.double").len(), 1);

    let letters = DeadLetters::connect(&broker, "math.double").await.unwrap();
    letters.replay_where(|letter| letter.reason() == "unanswerable").await.unwrap();
    broker.idle().await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert_eq!(broker.dead_letters("math.double").len(), 0);
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.dead_lettered, counts.replies_lost), (1, 1, 2));
    running.stop().await.unwrap();
}

/// The reply address that mmate for Go looks for in the payload is not seen by ours.
#[tokio::test(start_paused = true)]
async fn a_strict_type_of_a_request_does_not_see_the_reply_address() {
    let broker = InProcess::new();
    let strictly = Subscription::queries("strict", ["Strict"]).handler(strict);
    let running = Service::new("math").subscribe(strictly).start(broker.clone()).await.unwrap();
    let question = Outgoing::query("Strict", &Strict { number: u64::MAX });
    assert_eq!(running.publisher().request::<u64>(question).await.unwrap(), u64::MAX);

    // What else is not known is refused as ever.
    let odd = serde_json::json!({"number": 1, "colour": "red"});
    let error = running.publisher().request::<u64>(Outgoing::query("Strict", &odd)).await;
    assert!(error.unwrap_err().to_string().contains("undecodable"));
    // And so is a field of that name in a message that is no request.
    let named = serde_json::json!({"number": 1, "replyTo": 7});
    running.publisher().publish(Outgoing::query("Strict", &named)).await.unwrap();
    broker.idle().await;
    assert_eq!(broker.dead_letters("math.strict").len(), 2);
    running.stop().await.unwrap();
}
