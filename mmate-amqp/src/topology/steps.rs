//! The single steps of a declaration, and what their refusals mean.

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};
use mmate_core::message::wire;
use mmate_core::transport::{
    Binding, Declare, Partition, QueueKind, QueueMode, QueuePlan, TransportError,
    TransportErrorKind as Kind,
};

use super::arguments;
use crate::failure::Failure;
use crate::link::Session;

/// A step of a declaration. All names in it have been checked to be short.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    Queue {
        plan: &'a QueuePlan,
        delivery_limit: u32,
    },
    Exchange(&'a str),
    DeadLetterQueue(&'a QueuePlan),
    DeadLetterBinding(&'a QueuePlan),
    Binding {
        plan: &'a QueuePlan,
        binding: &'a Binding,
    },
    /// The exchange that shares messages out to the parts of a queue.
    PartitionExchange(&'a Partition),
    /// From an exchange to that one.
    PartitionRoute {
        partition: &'a Partition,
        binding: &'a Binding,
    },
    /// From that one to a part.
    PartitionBinding {
        plan: &'a QueuePlan,
        partition: &'a Partition,
    },
}

impl Step<'_> {
    /// Takes the step. The broker closes the channel with a refusal.
    pub(super) async fn take(self, session: &Session, channel: &Channel) -> Result<(), Failure> {
        match self {
            Self::Queue { plan, delivery_limit } => {
                let (options, arguments) = queue(plan, delivery_limit);
                declare_queue(session, channel, &plan.name, options, arguments).await
            }
            Self::Exchange(name) => {
                declare_exchange(session, channel, name, ExchangeDeclareOptions::default()).await
            }
            Self::DeadLetterQueue(plan) => {
                let (name, options) = (plan.dead_letter_queue(), QueueDeclareOptions::durable());
                let arguments = arguments::dead_letter_queue();
                declare_queue(session, channel, &name, options, arguments).await
            }
            Self::DeadLetterBinding(plan) => {
                let name = plan.dead_letter_queue();
                bind(session, channel, &name, wire::DEAD_LETTERS, &plan.name).await
            }
            Self::Binding { plan, binding } => {
                let key = binding.pattern.binding_key();
                bind(session, channel, &plan.name, &binding.exchange, &key).await
            }
            Self::PartitionExchange(partition) => {
                let kind = ExchangeKind::Custom(CONSISTENT_HASH.to_owned());
                let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
                let (name, arguments) = (partition.exchange(), arguments::hash(partition));
                let name = name.as_str().into();
                let declare = channel.exchange_declare(name, kind, options, arguments);
                let declared = session.ask(declare).await;
                // For a type that it does not know the broker closes the whole connection, and what
                // this call is told is that it is gone.
                if declared.is_err()
                    && session.is_lost()
                    && session.end_reason().await.contains("unknown exchange type")
                {
                    let said = session.end_reason().await.to_owned();
                    return Err(Failure::UnknownExchangeType(said));
                }
                declared
            }
            Self::PartitionRoute { partition, binding } => {
                let (to, key) = (partition.exchange(), binding.pattern.binding_key());
                let (to, from) = (to.as_str().into(), binding.exchange.as_str().into());
                let (options, none) = (ExchangeBindOptions::default(), FieldTable::default());
                let bound = channel.exchange_bind(to, from, (&*key).into(), options, none);
                session.ask(bound).await
            }
            Self::PartitionBinding { plan, partition } => {
                bind(session, channel, &plan.name, &partition.exchange(), WEIGHT).await
            }
        }
    }

    /// Looks whether what the step makes is there. A binding cannot be looked for, and is made.
    pub(super) async fn look(self, session: &Session, channel: &Channel) -> Result<(), Failure> {
        let passive = QueueDeclareOptions::default().passive();
        match self {
            Self::Exchange(name) => {
                let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
                declare_exchange(session, channel, name, options).await
            }
            Self::DeadLetterQueue(plan) => {
                let name = plan.dead_letter_queue();
                declare_queue(session, channel, &name, passive, FieldTable::default()).await
            }
            Self::Queue { plan, .. } => {
                declare_queue(session, channel, &plan.name, passive, FieldTable::default()).await
            }
            Self::PartitionExchange(partition) => {
                let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
                declare_exchange(session, channel, &partition.exchange(), options).await
            }
            Self::DeadLetterBinding(_)
            | Self::Binding { .. }
            | Self::PartitionRoute { .. }
            | Self::PartitionBinding { .. } => self.take(session, channel).await,
        }
    }

    /// Whether the broker tells that it is there, which it does not of bindings.
    pub(super) fn can_be_looked_for(self) -> bool {
        !matches!(self, Self::DeadLetterBinding(_) | Self::Binding { .. })
    }

    /// What is not there, or may not be looked for.
    pub(super) fn missing(self, refusal: Failure) -> TransportError {
        let kind = refusal.kind();
        let attempted = self.to_string().replacen("declare", "verify", 1);
        let error = refusal.into_error(attempted);
        match kind {
            Kind::NotFound => error.hint(
                "nothing is made here, as Declare::Verify asks for; make it, or use \
                 Declare::Create",
            ),
            _ => error,
        }
    }

    /// What is enough after a refusal, if anything is.
    pub(super) async fn settle_for_less(
        self,
        session: &Session,
        channel: &Channel,
        refusal: Failure,
    ) -> Result<(), TransportError> {
        match (self, refusal.kind()) {
            // One that was made otherwise, such as by mmate for Go, takes dead letters as well.
            (Self::DeadLetterQueue(_), Kind::Mismatch) => Ok(()),
            // An account that may use things and not make them is refused also what is there. A
            // look needs no permission.
            (Self::Exchange(_) | Self::DeadLetterQueue(_), Kind::Forbidden) => {
                self.look(session, channel).await.map_err(|_| self.error(refusal))
            }
            _ => Err(self.error(refusal)),
        }
    }

    pub(super) fn error(self, refusal: Failure) -> TransportError {
        let kind = refusal.kind();
        let error = refusal.into_error(self.to_string());
        match self.hint(kind) {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn hint(self, kind: Kind) -> Option<&'static str> {
        Some(match (self, kind) {
            (Self::Queue { .. }, Kind::Mismatch) => {
                "take the queue as it is with .passive(), ask for the kind it is of with \
                 .queue_kind(…) and for .single_active_consumer() if it has one, or delete it"
            }
            (Self::Queue { .. }, Kind::NotFound) => {
                ".passive() takes a queue that somebody else makes; without it is made here"
            }
            (Self::Queue { .. }, Kind::Locked) => "the queue belongs to another connection alone",
            (Self::Queue { .. }, Kind::Forbidden) => {
                "the account needs the configure permission for the queue, or .passive() if \
                 somebody else makes it"
            }
            (Self::Exchange(_), Kind::Mismatch) => {
                "mmate's exchanges are durable topic exchanges; delete this other one"
            }
            (Self::Exchange(_) | Self::DeadLetterQueue(_), Kind::Forbidden) => {
                "it is not there, and the account has no configure permission to make it"
            }
            (Self::PartitionExchange(_), Kind::Configuration) => {
                "partitions need the plugin rabbitmq_consistent_hash_exchange, which comes with the \
                 broker; on each of its nodes: rabbitmq-plugins enable \
                 rabbitmq_consistent_hash_exchange"
            }
            (Self::PartitionExchange(_), Kind::Mismatch) => {
                "an exchange of another type has this name; delete it, or name the subscription \
                 otherwise"
            }
            (
                Self::Binding { .. }
                | Self::DeadLetterBinding(_)
                | Self::PartitionRoute { .. }
                | Self::PartitionBinding { .. },
                Kind::Forbidden,
            ) => {
                "a binding needs the write permission for the queue and the read permission for \
                 the exchange"
            }
            _ => return None,
        })
    }
}

/// What is attempted, after "failed to".
impl std::fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue { plan, .. } => write!(f, "declare the queue {}", plan.name),
            Self::Exchange(name) => write!(f, "declare the exchange {name}"),
            Self::DeadLetterQueue(plan) => {
                write!(f, "declare the dead-letter queue {}", plan.dead_letter_queue())
            }
            Self::DeadLetterBinding(plan) => {
                write!(f, "bind the dead-letter queue {}", plan.dead_letter_queue())
            }
            Self::Binding { plan, binding } => {
                let Binding { exchange, pattern, .. } = binding;
                write!(f, "bind the queue {} to {pattern} of the exchange {exchange}", plan.name)
            }
            Self::PartitionExchange(partition) => {
                write!(f, "declare the exchange {}", partition.exchange())
            }
            Self::PartitionRoute { partition, binding } => {
                let Binding { exchange, pattern, .. } = binding;
                let to = partition.exchange();
                write!(f, "bind the exchange {to} to {pattern} of the exchange {exchange}")
            }
            Self::PartitionBinding { plan, partition } => {
                write!(f, "bind the queue {} to the exchange {}", plan.name, partition.exchange())
            }
        }
    }
}

const CONSISTENT_HASH: &str = "x-consistent-hash";
/// The share of the messages that a part gets, as the plugin takes it: in the routing key.
const WEIGHT: &str = "1";

fn queue(plan: &QueuePlan, delivery_limit: u32) -> (QueueDeclareOptions, FieldTable) {
    let none = FieldTable::default();
    let mut arguments = match (plan.declare, plan.mode, plan.kind) {
        (Declare::Passive, _, _) => return (QueueDeclareOptions::default().passive(), none),
        (_, QueueMode::PerInstance, _) => {
            return (QueueDeclareOptions::exclusive().auto_delete(), arguments::own(plan));
        }
        (_, _, QueueKind::Classic) => arguments::classic(plan),
        _ => arguments::quorum_queue(&plan.name, delivery_limit),
    };
    if plan.single_active_consumer {
        arguments::single_active_consumer(&mut arguments);
    }
    (QueueDeclareOptions::durable(), arguments)
}

pub(super) async fn declare_queue(
    session: &Session,
    channel: &Channel,
    name: &str,
    options: QueueDeclareOptions,
    arguments: FieldTable,
) -> Result<(), Failure> {
    session.ask(channel.queue_declare(name.into(), options, arguments)).await.map(drop)
}

pub(super) async fn declare_exchange(
    session: &Session,
    channel: &Channel,
    name: &str,
    options: ExchangeDeclareOptions,
) -> Result<(), Failure> {
    let options = ExchangeDeclareOptions { durable: true, ..options };
    let none = FieldTable::default();
    session.ask(channel.exchange_declare(name.into(), ExchangeKind::Topic, options, none)).await
}

pub(super) async fn bind(
    session: &Session,
    channel: &Channel,
    queue: &str,
    exchange: &str,
    key: &str,
) -> Result<(), Failure> {
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    session.ask(channel.queue_bind(queue.into(), exchange.into(), key.into(), options, none)).await
}
