//! Two instances of a service that crash, freeze and fail, and what the checker says of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use mmate_core::checker::{Checker, EndState, Event, Promise, Verdict, What};
use mmate_core::{
    Context, FromContext, HandlerError, InProcess, Middleware, Next, Outcome, Outgoing, Publisher,
    RetryPolicy, Service, State, Subscription,
};
use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::{ClaimRequest, Promises, StoreErrorKind};
use mmate_idempotency::{OnBusy, Permit, Store, StoreError, Tracked};
use tokio::sync::oneshot;

use crate::store::Broken;

/// What happened, for the checker.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<Event>>>, Arc<Mutex<HashSet<String>>>);

impl Notes {
    pub(crate) fn put(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    /// Marks something. Whether it is the first time.
    fn mark(&self, mark: String) -> bool {
        self.1.lock().unwrap().insert(mark)
    }

    fn has(&self, mark: &str) -> bool {
        self.1.lock().unwrap().contains(mark)
    }

    /// Returns when the processes that froze at it, one of each service, go on. Where a store is broken, none may have
    /// frozen.
    async fn thawed(&self, id: &str) {
        let begin = Instant::now();
        let is_thawed = |service: &&str| self.has(&format!("{service}/{id} is thawed"));
        while !["one", "two"].iter().all(is_thawed) && begin.elapsed() < 4 * LEASE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn count(&self, what: What) -> usize {
        self.0.lock().unwrap().iter().filter(|event| event.what == what).count()
    }

    /// Whether this process is at work on a message that takes long, and began less than half of that time ago.
    fn is_in_the_middle(&self, process: &str) -> bool {
        let events = self.0.lock().unwrap();
        let now = Event::now(What::Began, "").at;
        events.iter().rev().any(|event| {
            let is_its = event.what == What::Began && event.by == process;
            let id = event.id.split_once('/').map_or("", |(_, id)| id);
            is_its && is_slow(id) && u128::from(now - event.at) < LONG_WORK.as_micros() / 2
        })
    }

    pub(crate) fn verdict(&self, promise: Promise) -> Verdict {
        let mut checker = Checker::new(promise);
        self.all().iter().for_each(|event| checker.take(event));
        checker.verdict(&EndState::default())
    }
}

/// Much longer than a busy machine lets a thread wait: nothing but what is noted as a fault may end one.
const LEASE: Duration = Duration::from_millis(1000);
/// Of the messages that a process freezes at.
/// Shorter than the time between two heartbeats.
const LONG_WORK: Duration = Duration::from_millis(300);
/// So many messages go to each of the two services.
const MESSAGES: u64 = 600;

/// Runs two services with two instances each over one store. Copies are published with the messages and long after them;
/// handlers fail, processes freeze past their leases, and one is killed with messages in hand.
pub(crate) async fn play(store: Broken) -> (Verdict, Vec<Event>) {
    let (broker, notes) = (InProcess::new(), Notes::default());
    let clock = store.clock.clone();
    let ticking = tokio::spawn(async move {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            clock.advance(last.elapsed());
            last = Instant::now();
        }
    });
    let begin = |service: &'static str, number: u32| {
        Instance::start(&broker, &store, &notes, service, number)
    };
    let mut instances = Vec::new();
    for service in ["one", "two"] {
        for number in 1..=2 {
            instances.push(begin(service, number).await);
        }
    }
    let publisher = Publisher::connect(&broker, "publisher").await.unwrap();
    let mut ids: Vec<_> = (0..MESSAGES).map(id).collect();
    for id in &ids {
        announce(&notes, id);
        publish(&publisher, id, copies_of(id)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        if freezes(id) {
            // One at a time, so that there is somebody to take over.
            notes.thawed(id).await;
        }
    }
    let victim = instances.remove(0);
    while !notes.is_in_the_middle(&victim.name) {
        let id = id(MESSAGES + ids.len() as u64);
        announce(&notes, &id);
        publish(&publisher, &id, 2).await;
        ids.push(id);
        tokio::time::sleep(LONG_WORK / 4).await;
    }
    // Its messages are redelivered to others.
    notes.put(Event::fault(&*victim.name));
    victim.kill();
    broker.cut();
    instances.push(begin("one", 3).await);
    // Nobody else has a copy of those that it was at work on.
    for id in ids.iter().filter(|id| !is_slow(id)) {
        publish(&publisher, id, 1).await;
    }
    quiet(&broker, &notes).await;
    for instance in instances {
        instance.kill();
    }
    ticking.abort();
    (notes.verdict(Promise::EffectOnceUnlessCrashed), notes.all())
}

/// Some differ in case only.
fn id(number: u64) -> String {
    match number % 10 {
        3 => format!("m{}", number + 1),
        4 => format!("M{number}"),
        _ => format!("m{number}"),
    }
}

fn number(id: &str) -> u64 {
    id[1..].parse().unwrap()
}

/// The first process that handles it freezes.
fn freezes(id: &str) -> bool {
    number(id) % 150 == 20
}

/// The first handling fails, and giving the claim back takes longer than its lease: by then another one is at work. These
/// come when nobody freezes any more.
fn is_given_back_late(id: &str) -> bool {
    (480..540).contains(&number(id)) && number(id) % 10 == 5
}

/// The process that handles it is about to be killed.
fn is_slow(id: &str) -> bool {
    number(id) > MESSAGES - 10
}

fn copies_of(id: &str) -> usize {
    match freezes(id) || is_given_back_late(id) {
        true => 4,
        false => 2,
    }
}

/// It is going to be published; to both services.
fn announce(notes: &Notes, id: &str) {
    for service in ["one", "two"] {
        let business_id = format!("{service}/{id}");
        notes.put(Event::attempted(&*business_id));
        notes.put(Event::confirmed(business_id));
    }
}

async fn publish(publisher: &Publisher, id: &str, copies: usize) {
    for _ in 0..copies {
        publisher
            .publish(Outgoing::event("order.placed", "OrderPlaced", &()).id_text(id))
            .await
            .unwrap();
    }
}

/// Waits until all queues are empty, and nothing has happened for longer than a lease.
async fn quiet(broker: &InProcess, notes: &Notes) {
    let begin = Instant::now();
    let (mut since, mut last) = (Instant::now(), 0);
    while since.elapsed() < 2 * LEASE {
        assert!(
            begin.elapsed() < Duration::from_secs(50),
            "no quiet: {:?}",
            broker.queue("one.orders")
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
        let is_empty = ["one.orders", "two.orders"].iter().all(|queue| {
            broker
                .queue(queue)
                .is_some_and(|queue| queue.ready + queue.unacked + queue.delayed == 0)
        });
        let now = notes.all().len();
        if now != last || !is_empty {
            (since, last) = (Instant::now(), now);
        }
    }
    assert!(notes.count(What::Effect) > 0);
}

/// An instance in a thread of its own, which stands for a process: what blocks it stops all of it, heartbeats too.
struct Instance {
    name: String,
    kill: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Instance {
    async fn start(
        broker: &InProcess,
        store: &Broken,
        notes: &Notes,
        service: &'static str,
        number: u32,
    ) -> Self {
        let name = format!("{service}-{number}");
        let store = Seen {
            late: Mutex::default(),
            store: store.clone(),
            notes: notes.clone(),
            by: name.clone(),
            service,
        };
        let (broker, process) = (broker.clone(), Process::new(service, &name, notes));
        let (kill, killed) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let subscription = Subscription::per_service("orders", ["order.placed"])
                    .prefetch(64.try_into().unwrap())
                    .concurrency(32)
                    .retry(RetryPolicy::fixed(Duration::from_millis(5)))
                    .middleware(Seeing(process.clone()))
                    .idempotent(Tracked::new(store).lease(LEASE).on_busy(OnBusy::Wait(4 * LEASE)))
                    .handler(handle);
                let running = Service::new(service)
                    .state(process)
                    .subscribe(subscription)
                    .start(broker)
                    .await
                    .unwrap();
                ready.send(()).unwrap();
                let _ = killed.await;
                // Nothing is given back in good order.
                std::mem::forget(running);
            });
            runtime.shutdown_background();
        });
        is_ready.await.unwrap();
        Self { name, kill: Some(kill), thread: Some(thread) }
    }

    fn kill(mut self) {
        let _ = self.kill.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// What a handler knows of the process it is in.
#[derive(Clone)]
struct Process {
    service: &'static str,
    name: Arc<str>,
    notes: Notes,
    failed: Arc<AtomicU64>,
}

impl Process {
    fn new(service: &'static str, name: &str, notes: &Notes) -> Self {
        Self { service, name: name.into(), notes: notes.clone(), failed: Arc::default() }
    }

    /// Whether no process of the service has handled it before.
    fn is_first(&self, id: &str) -> bool {
        self.notes.mark(format!("{}/{id}", self.service))
    }

    /// Stops all of it until another process is at work on the message, or is done with it.
    fn freeze(&self, id: &str) {
        let begin = Instant::now();
        while !self.notes.has(&self.taken_over(id)) && begin.elapsed() < 3 * LEASE {
            std::thread::sleep(Duration::from_millis(5));
        }
        if number(id) / 150 % 2 == 1 {
            std::thread::sleep(2 * LONG_WORK);
        }
        self.notes.mark(format!("{}/{id} is thawed", self.service));
    }

    fn taken_over(&self, id: &str) -> String {
        format!("{}/{id} is taken over", self.service)
    }

    fn note(&self, what: What, id: &str) {
        self.notes.put(Event::now(what, format!("{}/{id}", self.service)).by(&*self.name));
    }
}

struct Id(String);

impl FromContext for Id {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(Self(context.message_id().map(ToString::to_string).unwrap_or_default()))
    }
}

async fn handle(State(process): State<Process>, Id(id): Id) -> Result<(), HandlerError> {
    if freezes(&id) && process.is_first(&id) {
        process.notes.put(Event::fault(&*process.name));
        process.freeze(&id);
        // One fails, and the others go on.
        if number(&id) / 150 == 3 {
            return Err(HandlerError::retryable("frozen"));
        }
    } else if is_given_back_late(&id) {
        if process.is_first(&id) {
            return Err(HandlerError::retryable("given back late"));
        }
        tokio::time::sleep(4 * LONG_WORK).await;
    } else if freezes(&id) || is_slow(&id) {
        process.notes.mark(process.taken_over(&id));
        tokio::time::sleep(LONG_WORK).await;
    } else {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if process.failed.fetch_add(1, Ordering::Relaxed) % 7 == 0 {
            return Err(HandlerError::retryable("now and then"));
        }
    }
    process.note(What::Effect, &id);
    Ok(())
}

/// Sees what is taken up, and what is skipped.
struct Seeing(Process);

#[async_trait]
impl Middleware for Seeing {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let id = context.message_id().unwrap().to_string();
        self.0.note(What::Began, &id);
        let outcome = next.run(context).await;
        if let Ok(Outcome::Duplicate(_)) = outcome {
            self.0.note(What::Suppressed, &id);
        }
        outcome
    }
}

/// Sees what is noted for good.
struct Seen {
    /// The fences of what is given back late.
    late: Mutex<HashSet<u64>>,
    store: Broken,
    notes: Notes,
    by: String,
    service: &'static str,
}

#[async_trait]
impl Store for Seen {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn promises(&self) -> Promises {
        self.store.promises()
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        self.store.claim(request).await
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        // The way of what is given back late is as bad for its heartbeats.
        if self.late.lock().unwrap().contains(&permit.fence()) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "prolong a lease", "no way"));
        }
        self.store.heartbeat(permit, lease).await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        let held = self.store.complete(permit, reply).await?;
        if held == Held::Yes {
            let id = format!("{}/{}", self.service, permit.key().id());
            self.notes.put(Event::now(What::Done, id).by(&*self.by));
        }
        Ok(held)
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        let id = permit.key().id();
        if is_given_back_late(id) {
            self.late.lock().unwrap().insert(permit.fence());
            tokio::time::sleep(LEASE + 2 * LONG_WORK).await;
        }
        self.store.release(permit).await
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        self.store.purge(at_most).await
    }
}
