//! The dead letters of a service, as an operator works on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Harness;
use super::service::{Heard, queue_of, start, stop, subscription};
use super::stage::{Stage, declare, eventually, soon};
use crate::context::Context;
use crate::dead_letters::{DeadLetterError, DeadLetters, Letter};
use crate::handler::FromContext;
use crate::message::{HeaderValue, Message, Outgoing, wire};
use crate::outcome::{HandlerError, Permanent};
use crate::service::Running;

/// What a handler saw of a message.
struct Seen {
    id: String,
    envelope_id: String,
    attempt: u32,
    topic: String,
    message: Message,
}

impl FromContext for Seen {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(Self {
            id: context.message_id().map(ToString::to_string).unwrap_or_default(),
            envelope_id: context.envelope()?.id.to_string(),
            attempt: context.attempt(),
            topic: format!("{}/{}", context.exchange(), context.routing_key()),
            message: context.message().clone(),
        })
    }
}

/// A service that refuses everything until it is mended, and then says what it saw.
struct Mendable {
    running: Running,
    mended: Arc<AtomicBool>,
    heard: Heard<Seen>,
    letters: DeadLetters,
}

impl Mendable {
    async fn start<H: Harness>(stage: &Stage<'_, H>) -> Self {
        let mended = Arc::new(AtomicBool::new(false));
        let (say, heard) = Heard::new();
        let handler = {
            let mended = Arc::clone(&mended);
            move |seen: Seen| {
                let mended = mended.load(Ordering::SeqCst);
                if mended {
                    let _ = say.send(seen);
                }
                async move { if mended { Ok(()) } else { Err("no such sku").permanent() } }
            }
        };
        let subscription = subscription(stage, &["#"]).concurrency(1).handler(handler);
        let running = start(stage, "service", subscription).await;
        let transport = stage.harness.transport();
        let letters = soon("connecting", DeadLetters::connect(&transport, queue_of(stage).name));
        let letters = letters.await.expect("the transport connects");
        Self { running, mended, heard, letters }
    }

    /// Lets messages with these ids die, one after the other.
    async fn lose<H: Harness>(&self, stage: &Stage<'_, H>, ids: &[&str]) {
        let before = self.running.stats().total().dead_lettered;
        for id in ids {
            let event = Outgoing::event(stage.name("a"), "Number", &1).id_text(id);
            let event = event.header("tenant", "acme");
            let published = soon("publishing", self.running.publisher().publish(event)).await;
            published.expect("the event is published");
        }
        eventually("the counting of dead letters", || async {
            self.running.stats().total().dead_lettered == before + ids.len() as u64
        })
        .await;
    }

    fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }

    async fn list(&self) -> Vec<Letter> {
        let listed = soon("listing", self.letters.list(100)).await;
        listed.expect("the letters are listed")
    }

    /// The ids of the letters, once there are so many.
    async fn ids(&self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        eventually("the return of the letters", || async { self.list().await.len() == count })
            .await;
        for letter in self.list().await {
            ids.push(letter.message_id().unwrap_or("none").to_owned());
        }
        ids
    }

    async fn until_succeeded(&self, count: u64) {
        eventually("the counting of successes", || async {
            self.running.stats().total().succeeded == count
        })
        .await;
    }

    async fn stop(self) {
        soon("closing", self.letters.close()).await;
        stop(self.running).await;
    }
}

/// Listed twice, they are the same; a running service has them at hand as well.
pub async fn letters_are_listed_and_stay<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let service = Mendable::start(&stage).await;
    assert!(service.list().await.is_empty());
    service.lose(&stage, &["a", "b", "c"]).await;
    assert_eq!(service.ids(3).await, ["a", "b", "c"]);
    let first_two = soon("listing", service.letters.list(2)).await.expect("they are listed");
    assert_eq!(first_two.len(), 2);
    assert_eq!(service.ids(3).await, ["a", "b", "c"]);

    let letter = &service.list().await[0];
    assert_eq!((letter.reason(), letter.is_by_broker()), ("permanent", false));
    assert_eq!(letter.error(), Some("no such sku"));
    assert_eq!((letter.attempts(), letter.replays()), (1, 0));
    assert_eq!(letter.queue(), queue_of(&stage).name);
    assert_eq!(letter.exchange(), wire::EVENTS);
    assert_eq!(letter.routing_key(), stage.name("a"));
    assert_eq!(letter.message_type(), Some("Number"));
    let died = letter.died_at().expect("it says when it died");
    assert!(letter.first_failed_at().expect("it says when it first failed") <= died);
    let payload = letter.envelope().expect("it has an envelope").payload::<u64>();
    assert_eq!(payload.expect("the payload is a number"), 1);

    assert!(service.running.dead_letters("nobody").is_none());
    let name = "q";
    let own = service.running.dead_letters(name).expect("the service has the subscription");
    assert_eq!(soon("listing", own.list(100)).await.expect("they are listed").len(), 3);
    service.stop().await;
}

/// S10, S34: the same message under its id, with its attempts before it, in its own queue only.
pub async fn a_replayed_letter_runs_again_as_the_same_message<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut service = Mendable::start(&stage).await;
    let neighbour = stage.queue("neighbour", &["#"]).await;
    service.lose(&stage, &["a", "b"]).await;
    assert_eq!(service.ids(2).await, ["a", "b"]);
    service.mend();
    let replayed = soon("replaying", service.letters.replay("b").into_future()).await;
    assert_eq!(replayed.expect("it is replayed"), 1);
    let seen = service.heard.next().await;
    assert_eq!((seen.id.as_str(), seen.envelope_id.as_str(), seen.attempt), ("b", "b", 1));
    assert_eq!(seen.topic, format!("{}/{}", wire::EVENTS, stage.name("a")));
    assert_eq!(seen.message.headers.text("tenant"), Some("acme"));
    assert_eq!(seen.message.headers.int(wire::REPLAYS), Some(1));
    for note in [wire::REASON, wire::ERROR, wire::ATTEMPTS, wire::DEAD_AT, wire::QUEUE] {
        assert!(!seen.message.headers.contains(note), "{note} is left");
    }
    service.until_succeeded(1).await;
    assert_eq!(service.ids(1).await, ["a"]);
    let unknown = soon("replaying", service.letters.replay("b").into_future()).await;
    assert_eq!(unknown.expect("nothing goes wrong"), 0);
    service.stop().await;
    // Those that were published, and none that was replayed.
    assert_eq!(stage.harness.ready(&neighbour.name).await, 2);
}

/// One that fails again is a dead letter again, once, and knows how often it was replayed.
pub async fn a_letter_that_fails_again_is_not_replayed_for_ever<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let service = Mendable::start(&stage).await;
    service.lose(&stage, &["a", "b"]).await;
    assert_eq!(service.ids(2).await.len(), 2);
    for round in 1..=2 {
        let all = service.letters.replay_where(|_| true).into_future();
        assert_eq!(soon("replaying", all).await.expect("they are replayed"), 2);
        eventually("the second death", || async {
            service.running.stats().total().dead_lettered == 2 + 2 * round
        })
        .await;
        assert_eq!(service.ids(2).await, ["a", "b"]);
        for letter in service.list().await {
            assert_eq!((letter.attempts(), u64::from(letter.replays())), (1, round));
        }
    }
    service.stop().await;
}

/// S10: it runs even if its id is done, since it has another one; the old one is kept.
pub async fn a_letter_is_replayed_as_new_under_an_id_of_its_own<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut service = Mendable::start(&stage).await;
    service.lose(&stage, &["a"]).await;
    assert_eq!(service.ids(1).await, ["a"]);
    service.mend();
    let replayed = soon("replaying", service.letters.replay("a").as_new().into_future()).await;
    assert_eq!(replayed.expect("it is replayed"), 1);
    let seen = service.heard.next().await;
    assert_ne!(seen.id, "a");
    assert_eq!(seen.envelope_id, seen.id, "the envelope has the new id as well");
    assert_eq!(seen.message.properties.message_id.as_deref(), Some(seen.id.as_str()));
    assert_eq!(seen.message.headers.text(wire::MESSAGE_ID), Some(seen.id.as_str()));
    assert_eq!(seen.message.headers.text(wire::REPLAY_OF), Some("a"));
    service.stop().await;
}

/// Chosen ones leave, up to the limit; the others keep their order.
pub async fn chosen_letters_are_discarded_and_the_others_stay<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let service = Mendable::start(&stage).await;
    service.lose(&stage, &["a", "b", "c", "d", "e"]).await;
    assert_eq!(service.ids(5).await.len(), 5);
    let discarded = soon("discarding", service.letters.discard("c").into_future()).await;
    assert_eq!(discarded.expect("it is discarded"), 1);
    assert_eq!(service.ids(4).await, ["a", "b", "d", "e"]);
    let chosen = service.letters.discard_where(|letter| letter.message_id() > Some("a")).limit(2);
    let discarded = soon("discarding", chosen.into_future()).await;
    assert_eq!(discarded.expect("they are discarded"), 2);
    assert_eq!(service.ids(2).await, ["a", "e"]);
    service.stop().await;
}

/// What cannot be decoded, has no id or two of them can be listed, replayed and discarded too.
pub async fn letters_that_cannot_be_read_are_letters_too<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let mut service = Mendable::start(&stage).await;
    let queue = queue_of(&stage);
    let mut broken = Message::new(b"{\"id\": \"\xff".to_vec());
    broken.properties.message_id = Some("broken".to_owned());
    let nameless = Message::new("no envelope");
    let mut two_ids = Message::new(
        r#"{"id":"first","type":"Number","timestamp":"2026-11-21T09:01:13Z","payload":1}"#,
    );
    two_ids.properties.message_id = Some("first".to_owned());
    two_ids.headers.insert(wire::MESSAGE_ID_PLAIN, "second");
    two_ids.headers.insert("bytes", HeaderValue::Bytes(b"\xfe".to_vec().into()));
    for message in [broken, nameless, two_ids] {
        stage.put(&queue, message).await;
    }
    eventually("three dead letters", || async {
        service.running.stats().total().dead_lettered == 3
    })
    .await;
    assert_eq!(service.ids(3).await, ["broken", "none", "first"]);
    let letters = service.list().await;
    let reasons: Vec<_> = letters.iter().map(Letter::reason).collect();
    assert_eq!(reasons, ["undecodable", "undecodable", "malformed"]);
    assert!(letters[0].envelope().is_err());
    assert_eq!(&letters[0].body()[..], b"{\"id\": \"\xff");

    // Under one new id in all places, the third can be handled.
    service.mend();
    let all = service.letters.replay_where(|_| true).as_new().into_future();
    assert_eq!(soon("replaying", all).await.expect("they are replayed"), 3);
    let seen = service.heard.next().await;
    assert_eq!(seen.message.headers.text(wire::REPLAY_OF), Some("first"));
    assert_eq!(service.ids(2).await.len(), 2);
    let all = service.letters.discard_where(|letter| letter.envelope().is_err()).into_future();
    assert_eq!(soon("discarding", all).await.expect("they are discarded"), 2);
    assert!(service.list().await.is_empty());
    service.stop().await;
}

/// The queue that they came from is gone, or there never was one.
pub async fn what_cannot_be_replayed_or_opened_is_told<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let transport = harness.transport();
    let connecting = DeadLetters::connect(&transport, stage.name("gone"));
    let letters = soon("connecting", connecting).await.expect("the transport connects");
    let error = soon("listing", letters.list(1)).await.expect_err("there is no such queue");
    assert!(matches!(error, DeadLetterError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains(&stage.name("gone")), "{error}");

    let mut dead = stage.plan("x", &[]);
    dead.name = wire::dead_letter_queue(&stage.name("gone"));
    declare(&*stage.connection, &dead).await;
    stage.put(&dead, Message::new("one")).await;
    stage.until_ready(&dead, 1).await;
    let all = letters.replay_where(|_| true).into_future();
    let error = soon("replaying", all).await.expect_err("there is no queue for it");
    assert!(matches!(error, DeadLetterError::Stayed { .. }), "{error}");
    assert_eq!(error.done(), 0);
    assert!(error.to_string().contains(&stage.name("gone")), "{error}");
    stage.until_ready(&dead, 1).await;
    soon("closing", letters.close()).await;
}
