//! One queue: what waits, what is held, what is delayed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use super::broker::{ConnectionId, ConsumerId, Tag};
use crate::message::Message;
use crate::topic::TopicPattern;
use crate::transport::{Binding, HashBy, Partition, QueueKind, QueueMode, QueuePlan};

/// What is in a queue of an [`InProcess`](crate::InProcess) broker at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QueueState {
    /// Messages that wait for a consumer.
    pub ready: usize,
    /// Messages that a consumer was given and has not settled.
    pub unacked: usize,
    /// Messages that are shown again later.
    pub delayed: usize,
    /// Consumers.
    pub consumers: usize,
}

/// A message in a queue, and how it got there.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) message: Message,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) redelivered: bool,
    /// When it has waited for too long.
    pub(super) expires_at: Option<Instant>,
}

impl Stored {
    /// Ends its expiring, once it was shown.
    pub(super) fn stays(&mut self) {
        self.expires_at = None;
        self.message.properties.expires_after = None;
    }
}

/// What a queue is, as far as a second declaration must agree with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Durable(QueueKind, Serves),
    /// Only the connection that made it may use it, and it ends with it.
    Exclusive(ConnectionId),
}

impl Class {
    pub(super) fn of(plan: &QueuePlan, connection: ConnectionId) -> Self {
        match plan.mode {
            QueueMode::PerInstance => Self::Exclusive(connection),
            QueueMode::Shared | QueueMode::PerService => {
                let serves = if plan.single_active_consumer { Serves::One } else { Serves::All };
                Self::Durable(plan.kind, serves)
            }
        }
    }
}

/// Which of its consumers a queue gives messages to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Serves {
    /// To each in turn.
    All,
    /// To the one that is there for the longest time.
    One,
}

/// Where a message stands in a queue. One that goes back goes back to its place.
pub(super) type Place = u64;

/// When a message is shown: the most urgent first, and then in the order of their places.
type Turn = (Reverse<u8>, Place);

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) class: Class,
    /// The consumers, the next one to be served first.
    pub(super) consumers: VecDeque<ConsumerId>,
    /// How long it stays without a consumer.
    pub(super) expires: Option<Duration>,
    /// Since when it has none.
    idle_since: Instant,
    /// The highest priority that it tells apart.
    pub(super) max_priority: Option<u8>,
    bindings: Vec<(String, TopicPattern)>,
    partition: Option<Partition>,
    ready: BTreeMap<Turn, Stored>,
    delayed: BTreeMap<(Instant, Place), Stored>,
    held: HashMap<Tag, Held>,
}

/// A message that a consumer has.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) stored: Stored,
    pub(super) consumer: ConsumerId,
    place: Place,
    connection: ConnectionId,
}

impl Queue {
    pub(super) fn new(class: Class) -> Self {
        Self {
            class,
            consumers: VecDeque::new(),
            expires: None,
            idle_since: Instant::now(),
            max_priority: None,
            bindings: Vec::new(),
            partition: None,
            ready: BTreeMap::new(),
            delayed: BTreeMap::new(),
            held: HashMap::new(),
        }
    }

    pub(super) fn planned(class: Class, plan: &QueuePlan) -> Self {
        let max_priority = plan.max_priority;
        Self { expires: plan.expires, max_priority, ..Self::new(class) }
    }

    /// Notes that somebody uses it, or has just ceased to.
    pub(super) fn used(&mut self) {
        self.idle_since = Instant::now();
    }

    /// Whether nobody has used it for too long.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        let expired = |expires| now.saturating_duration_since(self.idle_since) >= expires;
        self.consumers.is_empty() && self.expires.is_some_and(expired)
    }

    /// Makes it the part of a queue that is parted.
    pub(super) fn part(&mut self, partition: Option<&Partition>) {
        self.partition = partition.cloned();
    }

    pub(super) fn partition(&self) -> Option<&Partition> {
        self.partition.as_ref()
    }

    /// Binds it by the key that a broker would be given: globs are not the broker's business.
    pub(super) fn bind(&mut self, binding: &Binding) {
        let key = TopicPattern::new(binding.pattern.binding_key())
            .expect("the binding key of a pattern is a pattern");
        let bound = (binding.exchange.clone(), key);
        if !self.bindings.contains(&bound) {
            self.bindings.push(bound);
        }
    }

    /// The keys that it is bound by.
    pub(super) fn bound(&self, exchange: &str) -> impl Iterator<Item = &TopicPattern> {
        self.bindings.iter().filter(move |(from, _)| from == exchange).map(|(_, key)| key)
    }

    pub(super) fn takes(&self, exchange: &str, topic: &str, message: &Message) -> bool {
        self.bound(exchange).any(|key| key.matches(topic)) && self.is_chosen(topic, message)
    }

    /// Whether it is the part that a message goes to.
    pub(super) fn is_chosen(&self, topic: &str, message: &Message) -> bool {
        self.partition.as_ref().is_none_or(|part| chosen(part, topic, message))
    }

    pub(super) fn push(&mut self, place: Place, stored: Stored) {
        let turn = self.turn(place, &stored);
        self.ready.insert(turn, stored);
    }

    fn turn(&self, place: Place, stored: &Stored) -> Turn {
        let priority = stored.message.properties.priority.unwrap_or_default();
        (Reverse(priority.min(self.max_priority.unwrap_or_default())), place)
    }

    pub(super) fn push_later(&mut self, due: Instant, place: Place, stored: Stored) {
        self.delayed.insert((due, place), stored);
    }

    /// When the next delayed message is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes out a delayed message that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Stored> {
        let first = self.delayed.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Takes out the first message that waits, if it has waited for too long. Only the first is looked
    /// at, as on RabbitMQ.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Stored> {
        let first = self.ready.first_entry()?;
        first.get().expires_at.is_some_and(|at| at <= now).then(|| first.remove())
    }

    /// Whether the first message that waits has waited for too long.
    pub(super) fn has_expired(&self, now: Instant) -> bool {
        let first = self.ready.first_key_value();
        first.and_then(|(_, stored)| stored.expires_at).is_some_and(|at| at <= now)
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Gives the first message that waits to a consumer.
    pub(super) fn hold(&mut self, tag: Tag, consumer: ConsumerId, connection: ConnectionId) {
        if let Some(((_, place), stored)) = self.ready.pop_first() {
            self.held.insert(tag, Held { stored, consumer, place, connection });
        }
    }

    pub(super) fn held(&self, tag: Tag) -> Option<&Held> {
        self.held.get(&tag)
    }

    /// Takes a message from its consumer, for good.
    pub(super) fn release(&mut self, tag: Tag) -> Option<Held> {
        self.held.remove(&tag)
    }

    /// Takes a message from its consumer, and puts it back at its place.
    pub(super) fn put_back(&mut self, mut held: Held) {
        held.stored.redelivered = true;
        self.push(held.place, held.stored);
    }

    /// Puts back everything that the consumers of a connection have; of all if `None`.
    pub(super) fn put_all_back(&mut self, connection: Option<ConnectionId>) {
        self.put_back_if(|held| connection.is_none_or(|id| held.connection == id));
    }

    /// Puts back everything that a consumer has.
    pub(super) fn put_back_of(&mut self, consumer: ConsumerId) {
        self.put_back_if(|held| held.consumer == consumer);
    }

    fn put_back_if(&mut self, of: impl Fn(&Held) -> bool) {
        for (_, held) in self.held.extract_if(|_, held| of(held)).collect::<Vec<_>>() {
            self.put_back(held);
        }
    }

    /// Whether only the first of the consumers is served.
    pub(super) fn serves_one(&self) -> bool {
        matches!(self.class, Class::Durable(_, Serves::One))
    }

    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.delayed.clear();
        self.held.clear();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.delayed.is_empty() && self.held.is_empty()
    }

    pub(super) fn state(&self) -> QueueState {
        QueueState {
            ready: self.ready.len(),
            unacked: self.held.len(),
            delayed: self.delayed.len(),
            consumers: self.consumers.len(),
        }
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        self.ready.values().map(|stored| stored.message.clone()).collect()
    }
}

/// Whether a message is for this part of a queue.
fn chosen(part: &Partition, topic: &str, message: &Message) -> bool {
    let mut hasher = DefaultHasher::new();
    match &part.hash_by {
        HashBy::Topic => topic.hash(&mut hasher),
        // As its bytes stand there: what has no such header is all in one part.
        HashBy::Header(name) => {
            format!("{:?}", message.headers.value(name)).hash(&mut hasher);
        }
        HashBy::CorrelationId => message.properties.correlation_id.hash(&mut hasher),
    }
    hasher.finish() % u64::from(part.count.max(1)) == u64::from(part.number)
}
