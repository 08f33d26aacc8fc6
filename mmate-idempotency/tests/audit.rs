//! Asking what became of messages.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mmate_core::{HandlerError, InProcess, Json, Outgoing, Publisher, Service, Subscription};
use mmate_idempotency::audit::{Audit, AuditQuery, ProcessedMessage, ProcessedStatus};
use mmate_idempotency::protocol::Claim;
use mmate_idempotency::store::{ClaimRequest, Claimant, ManualClock, RecordKey};
use mmate_idempotency::{Permit, SqliteStore, Store, Tracked};
use mmate_test_support::unique;

const LEASE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A store that can be asked, with names that no other test uses.
struct Desk<S> {
    store: S,
    clock: ManualClock,
    name: String,
}

impl<S: Store + Audit> Desk<S> {
    fn scope(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    async fn claim(&self, scope: &str, id: &str, conversation: Option<&str>) -> Permit {
        let key = RecordKey::new(self.scope(scope), id).unwrap();
        let claimant =
            Claimant { service: &self.name, subscription: scope, instance: "instance-1" };
        let conversation = conversation.map(|name| format!("{}-{name}", self.name));
        let mut request = ClaimRequest::new(key, claimant, LEASE);
        request.correlation_id = conversation.as_deref();
        request.message_type = "OrderCreated";
        let Claim::Granted(grant) = self.store.claim(&request).await.unwrap() else {
            panic!("{id:?} is free")
        };
        self.clock.advance(Duration::from_millis(1));
        Permit::new(&request, grant)
    }

    async fn done(&self, scope: &str, id: &str, conversation: Option<&str>) {
        let permit = self.claim(scope, id, conversation).await;
        self.store.complete(&permit, None).await.unwrap();
    }

    fn query(&self) -> AuditQuery {
        AuditQuery::new().service(self.name.as_str())
    }

    async fn ids(&self, query: AuditQuery) -> Vec<String> {
        let found = self.store.find(&query).await.unwrap();
        found.into_iter().map(|message| message.message_id).collect()
    }
}

async fn every_condition_narrows_what_is_found<S: Store + Audit>(desk: Desk<S>) {
    let begin = SystemTime::from(desk.clock.now());
    desk.done("bill", "a", Some("one")).await;
    desk.done("bill", "A", Some("two")).await;
    desk.done("ship", "a", Some("one")).await;
    let held = desk.claim("ship", "held", None).await;
    let given_back = desk.claim("ship", "given back", Some("one")).await;
    desk.store.release(&given_back).await.unwrap();

    assert_eq!(desk.ids(desk.query()).await, ["a", "A", "a", "held", "given back"]);
    assert_eq!(desk.ids(desk.query().scope(desk.scope("bill"))).await, ["a", "A"]);
    assert_eq!(desk.ids(desk.query().message_id("a")).await, ["a", "a"]);
    assert_eq!(desk.ids(desk.query().scope(desk.scope("bill")).message_id("A")).await, ["A"]);
    assert_eq!(desk.ids(desk.query().in_progress()).await, ["held"]);
    assert_eq!(desk.ids(desk.query().status(ProcessedStatus::Released)).await, ["given back"]);
    assert_eq!(desk.ids(desk.query().done().limit(2)).await, ["a", "A"]);
    assert_eq!(desk.ids(desk.query().message_type("Other")).await, [""; 0]);
    let two = begin + Duration::from_millis(2);
    assert_eq!(desk.ids(desk.query().until(two)).await, ["a", "A"]);
    assert_eq!(desk.ids(desk.query().since(two).done()).await, ["a"]);

    let found = desk.store.find(&desk.query().in_progress()).await.unwrap();
    let [message] = &found[..] else { panic!("{found:?}") };
    assert_eq!(message.fence, held.fence());
    assert_eq!((message.attempt, message.has_reply, message.lease_is_over), (1, false, false));
    assert_eq!((&*message.subscription, &*message.instance), ("ship", "instance-1"));
    assert_eq!((message.processed_at, message.correlation_id.as_deref()), (None, None));
    desk.clock.advance(LEASE);
    assert!(desk.store.find(&desk.query().in_progress()).await.unwrap()[0].lease_is_over);
    // Seven days after it was done a record counts as absent, be it purged or not.
    desk.clock.advance(8 * 24 * HOUR);
    assert_eq!(desk.ids(desk.query()).await, [""; 0]);
}

async fn a_done_message_knows_since_when_and_whether_a_reply_is_kept<S: Store + Audit>(
    desk: Desk<S>,
) {
    let permit = desk.claim("ask", "a", None).await;
    desk.clock.advance(Duration::from_millis(1_234));
    let done_at = SystemTime::from(desk.clock.now());
    desk.store.complete(&permit, Some("{}".into())).await.unwrap();
    let found = desk.store.find(&desk.query()).await.unwrap();
    let [ProcessedMessage { processed_at, claimed_at, expires_at, has_reply, .. }] = found[..]
    else {
        panic!("{found:?}")
    };
    assert_eq!((processed_at, has_reply), (Some(done_at), true));
    assert_eq!(claimed_at, done_at - Duration::from_millis(1_235));
    assert_eq!(expires_at, Some(done_at + 7 * 24 * HOUR));
}

async fn pages_follow_each_other_without_gap_or_repetition<S: Store + Audit>(desk: Desk<S>) {
    let mut expected = Vec::new();
    for number in 0..25 {
        let id = format!("{number:02}");
        // Several at the same millisecond.
        let key = RecordKey::new(desk.scope("bill"), &id).unwrap();
        let claimant = Claimant { service: &desk.name, subscription: "bill", instance: "" };
        desk.store.claim(&ClaimRequest::new(key, claimant, LEASE)).await.unwrap();
        if number % 7 == 0 {
            desk.clock.advance(Duration::from_millis(1));
        }
        expected.push(id);
    }
    desk.store.create_indexes().await.unwrap();
    desk.store.create_indexes().await.unwrap();
    let mut got = Vec::new();
    let mut query = desk.query().limit(4);
    loop {
        let page = desk.store.find(&query).await.unwrap();
        let Some(last) = page.last() else { break };
        query = query.after(last);
        got.extend(page.into_iter().map(|message| message.message_id));
    }
    assert_eq!(got, expected);
}

async fn what_looks_like_a_statement_finds_nothing<S: Store + Audit>(desk: Desk<S>) {
    desk.done("bill", "a", Some("one")).await;
    for text in ["' OR 1=1 --", "\" OR \"\" = \"", "%", "a\\", "a'"] {
        for query in [
            AuditQuery::new().message_id(text),
            AuditQuery::new().scope(text),
            AuditQuery::new().correlation_id(text),
            AuditQuery::new().service(text),
        ] {
            assert_eq!(desk.ids(query).await, [""; 0], "{text:?}");
        }
    }
}

/// Everything under one correlation id, over two services and in the order of its handling.
async fn a_chain_is_listed_from_its_first_message_to_its_last<S: Store + Audit + Clone>(
    desk: Desk<S>,
) {
    let broker = InProcess::new();
    let store: Arc<dyn Store> = Arc::new(desk.store.clone());
    let event = |step: &str| format!("order.{step}.{}", desk.name);
    let next = |to: Option<String>| {
        move |Json(n): Json<u64>, publisher: Publisher| {
            let to = to.clone();
            async move {
                if let Some(topic) = to {
                    publisher.publish(Outgoing::event(topic, "Step", &(n + 1))).await?;
                }
                Ok::<(), HandlerError>(())
            }
        }
    };
    let mut running = Vec::new();
    for (name, on, to) in
        [("first", "one", Some("two")), ("second", "two", Some("three")), ("third", "three", None)]
    {
        let subscription = Subscription::per_service("step", [event(on)])
            .idempotent(Tracked::new(Arc::clone(&store)))
            .handler(next(to.map(event)));
        let service = Service::new(format!("{}-{name}", desk.name)).subscribe(subscription);
        running.push(service.start(broker.clone()).await.unwrap());
    }
    let conversation = format!("{}-conversation", desk.name);
    for order in [&conversation, &unique("another")] {
        let message =
            Outgoing::event(event("one"), "Step", &1).correlation_id(order.parse().unwrap());
        running[0].publisher().publish(message).await.unwrap();
        broker.idle().await;
        desk.clock.advance(Duration::from_millis(1));
    }
    let chain = desk.store.chain(&conversation).await.unwrap();
    let mut services: Vec<_> = chain.iter().map(|message| message.service.as_str()).collect();
    // They are handled within one millisecond of a clock that stands still.
    services.sort_unstable();
    let name = &desk.name;
    assert_eq!(services, ["first", "second", "third"].map(|s| format!("{name}-{s}")));
    assert!(chain.iter().all(|message| message.status == ProcessedStatus::Done), "{chain:?}");
    for one in running {
        one.stop().await.unwrap();
    }
}

macro_rules! audited {
    ($store:ident: $($case:ident),* $(,)?) => {
        mod $store {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$store(async |desk| super::$case(desk).await).await;
                }
            )*
        }
    };
}

async fn sqlite(case: impl AsyncFnOnce(Desk<SqliteStore>)) {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let store = SqliteStore::open(folder.path().join("records.db")).await.unwrap();
    let store = store.clock(clock.clone());
    store.migrate().await.unwrap();
    case(Desk { store, clock, name: unique("audit") }).await;
}

audited! {
    sqlite:
    every_condition_narrows_what_is_found,
    a_done_message_knows_since_when_and_whether_a_reply_is_kept,
    pages_follow_each_other_without_gap_or_repetition,
    what_looks_like_a_statement_finds_nothing,
    a_chain_is_listed_from_its_first_message_to_its_last,
}
