//! The broker's state, behind one lock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::chaos::Faults;
use super::declaring::check_access;
use super::later::Later;
use super::queue::{Class, Queue, Serves, Stored};
use super::routes::Routes;
use super::subscriber::Subscriber;
use crate::health::Status;
use crate::message::wire;
use crate::transport::{
    Destination, Publication, PublishError, QueueKind, TransportError, TransportErrorKind,
};

/// Longer than any test, and short enough that the sum with the clock is a time.
const LONGEST_DELAY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The moment after this long.
pub(super) fn after_now(time: Duration) -> Instant {
    Instant::now() + time.min(LONGEST_DELAY)
}

pub(super) type ConnectionId = u64;
pub(super) type ConsumerId = u64;
/// Names one showing of a message. None is used twice, so a stale one is known by not being there.
pub(super) type Tag = u64;

#[derive(Debug, Default)]
pub(super) struct Broker {
    state: Mutex<State>,
    /// Told when the broker may have become idle, or reachable again.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) faults: Faults,
    pub(super) queues: BTreeMap<String, Queue>,
    pub(super) consumers: HashMap<ConsumerId, Subscriber>,
    pub(super) later: Later,
    pub(super) routes: Routes,
    connections: HashSet<ConnectionId>,
    paused: bool,
    /// How often all connections were cut.
    pub(super) cuts: u64,
    last_number: u64,
}

impl Broker {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock would be a defect of ours, and the tests around it will tell.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, once the broker can be reached by this connection, or the connection is closed.
    pub(super) async fn reach(&self, connection: ConnectionId) -> MutexGuard<'_, State> {
        // A loop of many calls that are all ready at once must not starve its neighbours.
        tokio::task::coop::consume_budget().await;
        loop {
            let changed = self.changed.notified();
            {
                let state = self.lock();
                if !state.paused || !state.is_open(connection) {
                    return state;
                }
            }
            changed.await;
        }
    }

    /// Tells those who wait for the broker, or for its being idle, to look again.
    pub(super) fn announce(&self) {
        self.changed.notify_waiters();
    }

    pub(super) fn cut(&self) {
        self.lock().cut();
        self.announce();
    }

    pub(super) fn pause(&self) {
        let mut state = self.lock();
        state.paused = true;
        state.cut();
        drop(state);
        self.announce();
    }

    pub(super) fn resume(&self) {
        let mut state = self.lock();
        state.paused = false;
        state.serve_all();
        drop(state);
        self.announce();
    }

    pub(super) async fn idle(&self) {
        loop {
            let changed = self.changed.notified();
            let due = {
                let mut state = self.lock();
                state.show_due();
                let mut consumed = state.queues.values().filter(|q| !q.consumers.is_empty());
                let later = consumed.clone().filter_map(|queue| state.later.due_for(queue)).min();
                if later.is_none() && consumed.clone().all(Queue::is_idle) {
                    return;
                }
                consumed.by_ref().filter_map(Queue::due).chain(later).min()
            };
            wait(changed, due).await;
        }
    }
}

/// Waits for a notification, at most until then.
pub(super) async fn wait(notified: impl Future<Output = ()>, until: Option<Instant>) {
    match until {
        None => notified.await,
        // Whether it was told or timed out, the caller looks again.
        Some(until) => drop(tokio::time::timeout_at(until, notified).await),
    }
}

impl State {
    /// A number that was not used before, for ids, tags and places alike.
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn is_open(&self, connection: ConnectionId) -> bool {
        self.connections.contains(&connection)
    }

    pub(super) fn connect(&mut self) -> ConnectionId {
        let id = self.number();
        self.connections.insert(id);
        id
    }

    /// How a connection is.
    pub(super) fn status(&self, connection: ConnectionId) -> Status {
        if !self.connections.contains(&connection) {
            Status::down("the connection was closed")
        } else if self.paused {
            Status::down("the broker is paused")
        } else {
            Status::Up
        }
    }

    /// Ends a connection: its queues vanish, and what it has goes back.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
        let gone: Vec<_> = self.consumers.extract_if(|_, of| of.connection == connection).collect();
        self.queues.retain(|_, queue| queue.class != Class::Exclusive(connection));
        for (id, subscriber) in gone {
            if let Some(queue) = self.queues.get_mut(&subscriber.queue) {
                queue.consumers.retain(|other| *other != id);
                queue.used();
            }
            subscriber.wake.notify_one();
        }
        for queue in self.queues.values_mut() {
            queue.put_all_back(Some(connection));
        }
        self.serve_all();
    }

    fn cut(&mut self) {
        self.cuts += 1;
        for queue in self.queues.values_mut() {
            match queue.class {
                Class::Exclusive(_) => queue.clear(),
                Class::Durable(..) => queue.put_all_back(None),
            }
        }
        for subscriber in self.consumers.values_mut() {
            subscriber.buffer.clear();
            subscriber.held = 0;
        }
        self.serve_all();
    }

    /// Adds a consumer to a queue.
    pub(super) fn subscribe(
        &mut self,
        name: &str,
        prefetch: u16,
        connection: ConnectionId,
    ) -> Result<(ConsumerId, Arc<Notify>), TransportError> {
        let failed = |kind| TransportError::new(kind, format!("consume the queue {name:?}"));
        self.check_open(connection).map_err(failed)?;
        self.end_expired();
        let id = self.number();
        let queue =
            self.queues.get_mut(name).ok_or_else(|| failed(TransportErrorKind::NotFound))?;
        check_access(queue, connection).map_err(failed)?;
        queue.consumers.push_back(id);
        let wake = Arc::<Notify>::default();
        let subscriber = Subscriber {
            queue: name.to_owned(),
            connection,
            buffer: VecDeque::new(),
            held: 0,
            prefetch,
            wake: Arc::clone(&wake),
        };
        self.consumers.insert(id, subscriber);
        self.serve(name);
        Ok((id, wake))
    }

    pub(super) fn publish(
        &mut self,
        publication: Publication,
        connection: ConnectionId,
    ) -> Result<(), PublishError> {
        self.check_open(connection).map_err(|_| PublishError::Closed)?;
        self.end_expired();
        self.route_due();
        let destination = publication.destination.to_string();
        let stored = match publication.delay {
            Some(delay) => self.keep(publication, delay),
            None => self.route(publication),
        };
        stored?;
        if self.faults.drop_confirm() {
            let reason = "the confirmation was dropped on demand".to_owned();
            return Err(PublishError::Ambiguous { destination, reason });
        }
        Ok(())
    }

    /// Puts a message into every queue that it goes to.
    pub(super) fn route(&mut self, publication: Publication) -> Result<(), PublishError> {
        let Publication { destination, message, mandatory, .. } = publication;
        let (targets, exchange, routing_key) = match &destination {
            Destination::Exchange { name, topic } => {
                let targets = self.targets(name, topic.as_str(), &message);
                (targets, name.clone(), topic.to_string())
            }
            Destination::Queue(name) => {
                let there = self.queues.contains_key(name).then(|| name.clone());
                (there.into_iter().collect(), String::new(), name.clone())
            }
        };
        if targets.is_empty() {
            let destination = destination.to_string();
            return if mandatory { Err(PublishError::Unroutable { destination }) } else { Ok(()) };
        }
        let expires_after = message.properties.expires_after;
        let expires_at = expires_after.map(after_now);
        let stored = Stored { message, exchange, routing_key, redelivered: false, expires_at };
        let copies = if self.faults.duplicate() { 2 } else { 1 };
        for queue in &targets {
            for _ in 0..copies {
                self.enqueue(queue, stored.clone());
            }
        }
        Ok(())
    }

    pub(super) fn check_open(&self, connection: ConnectionId) -> Result<(), TransportErrorKind> {
        if self.is_open(connection) { Ok(()) } else { Err(TransportErrorKind::Closed) }
    }

    pub(super) fn enqueue(&mut self, name: &str, stored: Stored) {
        let place = self.number();
        if let Some(queue) = self.queues.get_mut(name) {
            queue.push(place, stored);
            self.serve(name);
        }
    }

    /// Makes a queue's dead-letter queue if it is missing.
    pub(super) fn dead_letter_queue(&mut self, queue: &str) -> String {
        let partition = self.queues.get(queue).and_then(Queue::partition);
        let name = wire::dead_letter_queue(partition.map_or(queue, |partition| &partition.of));
        if let Entry::Vacant(vacant) = self.queues.entry(name.clone()) {
            vacant.insert(Queue::new(Class::Durable(QueueKind::Quorum, Serves::All)));
            self.routes.forget();
        }
        name
    }

    /// Puts a message into a queue's dead-letter queue.
    pub(super) fn bury(&mut self, queue: &str, mut stored: Stored) {
        let name = self.dead_letter_queue(queue);
        stored.stays();
        stored.exchange.clear();
        stored.routing_key.clone_from(&name);
        stored.redelivered = false;
        self.enqueue(&name, stored);
    }

    /// Hides a message for a while. It then comes back to this queue only.
    pub(super) fn show_later(&mut self, name: &str, after: Duration, mut stored: Stored) {
        stored.stays();
        stored.exchange.clear();
        name.clone_into(&mut stored.routing_key);
        stored.redelivered = false;
        let place = self.number();
        let Some(queue) = self.queues.get_mut(name) else { return };
        queue.push_later(after_now(after), place, stored);
        self.wake(name);
    }

    /// Has those who wait for a queue look again, and at when to look next.
    pub(super) fn wake(&self, name: &str) {
        let Some(queue) = self.queues.get(name) else { return };
        for id in &queue.consumers {
            if let Some(subscriber) = self.consumers.get(id) {
                subscriber.wake.notify_one();
            }
        }
    }

    /// Hands out what waits in a queue, in turn, as far as its consumers have room.
    pub(super) fn serve(&mut self, name: &str) {
        self.drop_expired(name);
        let now = Instant::now();
        let Some(queue) = self.queues.get_mut(name).filter(|_| !self.paused) else { return };
        while queue.has_ready() {
            if queue.has_expired(now) {
                // It is taken out, and what comes after it served.
                return self.serve(name);
            }
            let consumers = &self.consumers;
            let free = |id: &ConsumerId| consumers.get(id).is_some_and(Subscriber::has_room);
            let id = if queue.serves_one() {
                queue.consumers.front().copied().filter(free)
            } else {
                queue.consumers.iter().position(free).and_then(|at| {
                    queue.consumers.rotate_left(at);
                    let id = queue.consumers.front().copied();
                    queue.consumers.rotate_left(1);
                    id
                })
            };
            let Some(id) = id else { return };
            let Some(subscriber) = self.consumers.get_mut(&id) else { return };
            self.last_number += 1;
            let tag = self.last_number;
            queue.hold(tag, id, subscriber.connection);
            subscriber.held += 1;
            subscriber.buffer.push_back(tag);
            subscriber.wake.notify_one();
        }
    }

    fn serve_all(&mut self) {
        for name in self.queue_names() {
            self.serve(&name);
        }
    }

    /// Puts what was delayed and is due at the end of its queue.
    pub(super) fn show_due_of(&mut self, name: &str) {
        self.route_due();
        let now = Instant::now();
        let mut some = false;
        while let Some(stored) = self.queues.get_mut(name).and_then(|queue| queue.pop_due(now)) {
            some = true;
            let place = self.number();
            if let Some(queue) = self.queues.get_mut(name) {
                queue.push(place, stored);
            }
        }
        if some {
            self.serve(name);
        }
    }

    fn show_due(&mut self) {
        for name in self.queue_names() {
            self.show_due_of(&name);
        }
    }
}
