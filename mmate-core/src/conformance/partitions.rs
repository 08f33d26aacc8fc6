//! Queues in parts, and the keys that are shared out to them.
//!
//! On RabbitMQ these cases need the plugin `rabbitmq_consistent_hash_exchange`.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::sync::mpsc;

use super::service::{start, stop, subscription};
use super::stage::{Inbox, Stage, declare, send, settle, soon, text};
use super::{Harness, disorder};
use crate::context::Context;
use crate::dead_letters::DeadLetters;
use crate::handler::FromContext;
use crate::message::{Message, Outgoing};
use crate::outcome::{DeadLetter, DeadReason, HandlerError};
use crate::service::Running;
use crate::subscription::{OrderKey, Subscription};
use crate::transport::{HashBy, QueuePlan, Settlement, TransportErrorKind};

async fn parts<H: Harness>(stage: &Stage<'_, H>, count: u16, by: &HashBy) -> Vec<QueuePlan> {
    let plans = stage.plan("q", &["#"]).partitioned(count, by);
    for plan in &plans {
        declare(&*stage.connection, plan).await;
    }
    plans
}

/// For everything that can be hashed: one key, one part; many keys, many parts; each message once.
pub async fn a_key_has_one_part_and_many_keys_have_many<H: Harness>(harness: &H) {
    const KEYS: usize = 30;
    for by in [HashBy::Topic, HashBy::Header("account-id".to_owned()), HashBy::CorrelationId] {
        let stage = Stage::new(harness).await;
        let plans = parts(&stage, 4, &by).await;
        for n in 0..2 * KEYS {
            let key = format!("k{}", n % KEYS);
            let mut message = Message::new(format!("{key} {n}"));
            let mut topic = "a".to_owned();
            match &by {
                HashBy::Header(name) => drop(message.headers.insert(name, key.as_str())),
                HashBy::CorrelationId => message.properties.correlation_id = Some(key),
                HashBy::Topic => topic = key,
            }
            send(&*stage.connection, stage.event(&topic), message).await;
        }
        let mut part_of: HashMap<String, usize> = HashMap::new();
        let mut count = 0;
        for (at, plan) in plans.iter().enumerate() {
            stage.put(plan, Message::new("end")).await;
            for text in stage.inbox(plan).await.read_until("end").await {
                count += 1;
                let key = text.split(' ').next().unwrap_or_default().to_owned();
                let part = *part_of.entry(key).or_insert(at);
                assert_eq!(part, at, "{text} by {by:?} is where its key is");
            }
        }
        assert_eq!(count, 2 * KEYS, "each message is in one part, by {by:?}");
        let used: BTreeSet<_> = part_of.values().collect();
        assert!(used.len() > 1, "{KEYS} keys are not all in one of four parts, by {by:?}");
    }
}

/// There is one place to look for what failed.
pub async fn the_parts_have_one_dead_letter_queue<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let plans = parts(&stage, 2, &HashBy::Topic).await;
    let name = format!("dlq.{}", stage.name("q"));
    for plan in &plans {
        assert_eq!(plan.dead_letter_queue(), name);
        stage.put(plan, Message::new(plan.name.clone())).await;
        let letter = DeadLetter::new(DeadReason::Permanent, "no");
        let delivery = stage.inbox(plan).await.next().await;
        settle(delivery, Settlement::DeadLetter { letter, attempts: 1 }).await;
    }
    let mut letters = stage.dead_letters(&plans[0]).await;
    let mut texts = [letters.read().await, letters.read().await];
    texts.sort();
    assert_eq!(texts, [plans[0].name.clone(), plans[1].name.clone()]);
}

/// S34: a replay leads to the part that the letter comes from, which has its key's other messages.
pub async fn a_replayed_letter_goes_back_to_its_part<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let plans = parts(&stage, 3, &HashBy::Topic).await;
    for plan in &plans {
        stage.put(plan, Message::new(plan.name.clone())).await;
        let letter = DeadLetter::new(DeadReason::Permanent, "no");
        let delivery = stage.inbox(plan).await.next().await;
        settle(delivery, Settlement::DeadLetter { letter, attempts: 1 }).await;
    }
    let transport = harness.transport();
    let connecting = DeadLetters::connect(&transport, stage.name("q"));
    let letters = soon("connecting", connecting).await.expect("the transport connects");
    let replayed = soon("replaying", letters.replay_where(|_| true).into_future()).await;
    assert_eq!(replayed.expect("the letters go back"), 3);
    for plan in &plans {
        assert_eq!(stage.inbox(plan).await.read().await, plan.name);
    }
}

/// A retried message comes back to its part.
pub async fn a_delayed_message_comes_back_to_its_part<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let plans = parts(&stage, 3, &HashBy::Topic).await;
    for plan in &plans {
        stage.put(plan, Message::new(plan.name.clone())).await;
        let mut inbox = Inbox::open(&*stage.connection, plan, 1).await;
        let after = Duration::from_millis(100);
        let retry = Settlement::Retry { after, error: "not yet".to_owned() };
        settle(inbox.next().await, retry).await;
        let again = inbox.next().await;
        assert_eq!((text(&again), again.failed_attempts), (plan.name.clone(), 1));
        settle(again, Settlement::Ack).await;
    }
}

/// What is left over from when there were more parts would fill up unseen.
pub async fn fewer_parts_than_there_are_is_a_mismatch<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    parts(&stage, 3, &HashBy::Topic).await;
    let fewer = stage.plan("q", &["#"]).partitioned(2, &HashBy::Topic);
    declare(&*stage.connection, &fewer[0]).await;
    let declared = soon("declaring", stage.connection.declare(&fewer[1])).await;
    let error = declared.expect_err("the third part is there");
    assert_eq!(error.kind(), TransportErrorKind::Mismatch, "{error}");
    assert!(error.to_string().contains(&format!("{}.2", stage.name("q"))), "{error}");
}

/// A key and a number that rises.
struct Account(i64);

impl FromContext for Account {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(Self(context.message().headers.int("account-id").unwrap_or(-1)))
    }
}

type Heard = mpsc::UnboundedReceiver<(i64, u64)>;

fn listening<H: Harness>(stage: &Stage<'_, H>) -> (Subscription, Heard) {
    let (say, heard) = mpsc::unbounded_channel();
    let handler = move |Account(account): Account, crate::Json(n): crate::Json<u64>| {
        let say = say.clone();
        async move {
            let _ = say.send((account, n));
            Ok::<(), HandlerError>(())
        }
    };
    let key = OrderKey::header("account-id");
    (subscription(stage, &["#"]).ordered_by(key).partitions(4).handler(handler), heard)
}

async fn publish<H: Harness>(stage: &Stage<'_, H>, by: &Running, account: i64, n: u64) {
    let event =
        Outgoing::event(stage.name("a"), "Booked", &n).header("account-id", account.to_string());
    soon("publishing", by.publisher().publish(event)).await.expect("the event is published");
}

/// One instance has all parts; when it leaves the other one goes on with all of them.
pub async fn another_instance_goes_on_with_the_parts_in_their_order<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (subscription, mut one) = listening(&stage);
    let first = start(&stage, "service", subscription).await;
    let (subscription, mut two) = listening(&stage);
    let second = start(&stage, "service", subscription).await;
    for n in 0..10 {
        for account in 0..10 {
            publish(&stage, &second, account, n).await;
        }
    }
    let mut effects = Vec::new();
    for _ in 0..100 {
        effects.push(soon("a handling", one.recv()).await.expect("the first runs"));
    }
    assert!(two.try_recv().is_err(), "the first came first to all parts");
    stop(first).await;
    for n in 10..20 {
        for account in 0..10 {
            publish(&stage, &second, account, n).await;
        }
    }
    for _ in 0..100 {
        effects.push(soon("a handling", two.recv()).await.expect("the second runs"));
    }
    assert_eq!(disorder(&effects), []);
    let all: BTreeSet<_> = effects.iter().collect();
    assert_eq!(all.len(), 200, "each message once");
    stop(second).await;
}
