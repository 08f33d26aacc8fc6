//! Messages that are published because of others.

use super::Harness;
use super::service::{Heard, publish, queue_of, run, stop, subscription};
use super::stage::{Stage, text};
use crate::context::Context;
use crate::handler::{FromContext, Json};
use crate::message::{Meta, Outgoing, wire};
use crate::outcome::{HandlerError, Outcome};
use crate::publisher::Publisher;
use crate::service::Service;

/// How many messages came before.
struct Hops(u32);

impl FromContext for Hops {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(Self(context.hops()))
    }
}

/// A handler that sets itself off again is stopped, and the last message tells why.
pub async fn a_chain_that_loops_is_dead_lettered_at_the_hop_limit<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let topic = stage.name("again");
    let echo = move |Json(n): Json<u64>, Hops(hops): Hops, publisher: Publisher| {
        let _ = say.send((n, hops));
        let topic = topic.clone();
        async move {
            publisher.publish(Outgoing::event(topic, "Number", &(n + 1))).await?;
            Ok::<(), HandlerError>(())
        }
    };
    let service = Service::new(stage.name("service"))
        .max_hops(3)
        .subscribe(subscription(&stage, &["#"]).handler(echo));
    let running = run(&stage, service).await;
    publish(&stage, &running, "again", 0).await;
    for n in 0..=3 {
        assert_eq!(heard.next().await, (n, u32::try_from(n).expect("it is small")));
    }
    let dead = stage.dead_letters(&queue_of(&stage)).await.next().await;
    assert_eq!(dead.message.headers.text(wire::REASON), Some("hop-limit"));
    assert_eq!(dead.message.headers.int(wire::HOPS), Some(4));
    assert!(text(&dead).contains("\"payload\":4"), "{}", text(&dead));
    let told = dead.message.headers.text(wire::ERROR).unwrap_or_default();
    assert!(told.contains("4 messages") && told.contains("3 may"), "{told}");
    let counts = running.stats().total();
    assert_eq!((counts.succeeded, counts.dead_lettered), (4, 1));
    stop(running).await;
}

/// What goes on for ever by design says so. Retries and deferrals are no hops.
pub async fn a_new_chain_counts_from_zero_and_a_deferral_counts_nothing<H: Harness>(harness: &H) {
    let stage = Stage::new(harness).await;
    let (say, mut heard) = Heard::new();
    let topic = stage.name("tick");
    let tick = move |Json(n): Json<u64>,
                     Hops(hops): Hops,
                     meta: Meta,
                     super::service::Deferrals(deferrals): super::service::Deferrals,
                     publisher: Publisher| {
        let _ = say.send((n, hops, deferrals, meta.correlation_id));
        let topic = topic.clone();
        async move {
            if deferrals == 0 {
                return Ok(Outcome::Defer { after: super::service::RETRY_DELAY });
            }
            let next = Outgoing::event(topic, "Number", &(n + 1));
            let next = if n % 2 == 1 { next.begin_chain() } else { next };
            if n < 4 {
                publisher.publish(next).await?;
            }
            Ok::<_, HandlerError>(Outcome::Done)
        }
    };
    let service = Service::new(stage.name("service"))
        .max_hops(1)
        .subscribe(subscription(&stage, &["#"]).handler(tick));
    let running = run(&stage, service).await;
    publish(&stage, &running, "tick", 0).await;
    let mut conversations = Vec::new();
    for n in 0..=4 {
        for deferrals in 0..=1 {
            let (heard_n, hops, heard_deferrals, conversation) = heard.next().await;
            assert_eq!((heard_n, heard_deferrals), (n, deferrals));
            assert_eq!(u64::from(hops), n % 2);
            conversations.push(conversation);
        }
    }
    conversations.dedup();
    assert_eq!(conversations.len(), 3, "two messages each, and the last one alone");
    stop(running).await;
}
