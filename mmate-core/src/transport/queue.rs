//! What a subscription asks of the broker.

use std::time::Duration;

use crate::topic::TopicPattern;

/// A queue as a subscription needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueuePlan {
    /// The queue's name.
    pub name: String,
    /// Who takes from it.
    pub mode: QueueMode,
    /// What it is made of.
    pub kind: QueueKind,
    /// What is routed into it.
    pub bindings: Vec<Binding>,
    /// Whether it is made, checked or left alone.
    pub declare: Declare,
    /// How long it stays when nobody consumes it, with what is in it; for ever if `None`. At least
    /// a millisecond. For queues of [`QueueKind::Classic`].
    pub expires: Option<Duration>,
    /// The highest priority that it tells apart; it has none if `None`. For queues of
    /// [`QueueKind::Classic`] and queues per instance.
    pub max_priority: Option<u8>,
    /// Whether its dead-letter queue is made with it; otherwise when it is needed first.
    pub dead_letters: bool,
    /// Whether only one of its consumers is given messages at a time, and another only when that
    /// one is gone.
    pub single_active_consumer: bool,
    /// Which part of a partitioned queue this is, if it is one.
    pub partition: Option<Partition>,
}

impl QueuePlan {
    /// A durable queue without bindings.
    #[must_use]
    pub fn new(name: impl Into<String>, mode: QueueMode) -> Self {
        Self {
            name: name.into(),
            mode,
            kind: QueueKind::Quorum,
            bindings: Vec::new(),
            declare: Declare::Create,
            expires: None,
            max_priority: None,
            dead_letters: true,
            single_active_consumer: false,
            partition: None,
        }
    }

    /// A queue for the replies to one process: it outlives the process's connection for so long,
    /// so that what is sent during a cut still arrives, and then ends by itself.
    #[must_use]
    pub fn for_replies(name: impl Into<String>, expires: Duration) -> Self {
        Self {
            kind: QueueKind::Classic,
            expires: Some(expires),
            dead_letters: false,
            ..Self::new(name, QueueMode::Shared)
        }
    }

    /// Adds a binding.
    #[must_use]
    pub fn bind(mut self, exchange: impl Into<String>, pattern: TopicPattern) -> Self {
        self.bindings.push(Binding { exchange: exchange.into(), pattern });
        self
    }

    /// The queue that its dead letters go to. The parts of a partitioned queue have one together.
    #[must_use]
    pub fn dead_letter_queue(&self) -> String {
        let queue = self.partition.as_ref().map_or(&self.name, |partition| &partition.of);
        crate::message::wire::dead_letter_queue(queue)
    }

    /// The parts `{queue}.0`, `{queue}.1`, … of this queue. Each has a single active consumer, and
    /// the bindings say what is routed to all of them together.
    #[must_use]
    pub fn partitioned(self, count: u16, hash_by: &HashBy) -> Vec<Self> {
        let part = |number| Self {
            name: format!("{}.{number}", self.name),
            single_active_consumer: true,
            partition: Some(Partition {
                of: self.name.clone(),
                number,
                count,
                hash_by: hash_by.clone(),
            }),
            ..self.clone()
        };
        (0..count).map(part).collect()
    }
}

/// One of the parts of a partitioned queue: a message goes into the one that its hash chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Partition {
    /// The queue's name without the number.
    pub of: String,
    /// Which part it is, from 0.
    pub number: u16,
    /// How many parts there are.
    pub count: u16,
    /// What the hash is made from.
    pub hash_by: HashBy,
}

impl Partition {
    /// The exchange that shares the messages out to the parts.
    #[must_use]
    pub fn exchange(&self) -> String {
        format!("{}.partitions", self.of)
    }

    /// For the last part: the name that the next one would have. If there is such a queue, it is
    /// left over from when there were more, and would be given messages that nobody takes.
    #[must_use]
    pub fn left_over(&self) -> Option<String> {
        let last = self.number.checked_add(1) == Some(self.count);
        last.then(|| format!("{}.{}", self.of, self.count))
    }
}

/// What a broker hashes to choose a part. Messages for which it is equal are in one part.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashBy {
    /// The topic.
    Topic,
    /// A header's value. The same number as text and as a number are two values.
    Header(String),
    /// The property `correlation_id`.
    CorrelationId,
}

/// Who takes from a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the three ways of sharing are the model")]
pub enum QueueMode {
    /// Everybody who knows its name; each message goes to one of them.
    Shared,
    /// The instances of one service; each service has its own copy of a message.
    PerService,
    /// One process; each process has its own copy, and the queue ends with it.
    PerInstance,
}

/// What a durable queue is made of. A queue per instance is always a classic one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum QueueKind {
    /// Replicated, and counts deliveries. The default.
    #[default]
    Quorum,
    /// Durable without any arguments, as mmate for Go declares its queues.
    Classic,
}

/// Whether a queue and what belongs to it are made, checked or left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Declare {
    /// What is missing is made: the queue, its exchanges and bindings, its dead-letter queue. The
    /// default.
    #[default]
    Create,
    /// The queue must be there, and is used as it is. What belongs to it is made.
    Passive,
    /// Nothing is made: the queue, its exchanges and its dead-letter queue must be there. Whether
    /// the bindings are, a broker does not say.
    Verify,
    /// Nothing is made and nothing is asked: the queue is consumed.
    LeaveAlone,
}

impl Declare {
    /// Whether what is missing may be made.
    #[must_use]
    pub fn makes_things(self) -> bool {
        matches!(self, Self::Create | Self::Passive)
    }
}

/// What is routed into a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Binding {
    /// From this exchange…
    pub exchange: String,
    /// …every topic that matches this.
    pub pattern: TopicPattern,
}

impl Binding {
    /// Routes the topics that match `pattern` from `exchange`.
    #[must_use]
    pub fn new(exchange: impl Into<String>, pattern: TopicPattern) -> Self {
        Self { exchange: exchange.into(), pattern }
    }
}
