//! Where messages wait that are published for later.

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use mmate_core::transport::TransportErrorKind;

use super::ladder::Rung;
use super::{arguments, steps};
use crate::failure::Failure;
use crate::link::Session;

/// Where a published message waits for its time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Waiting {
    pub(crate) target: Target,
    pub(crate) rung: Rung,
}

/// Where it goes then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Exchange(String),
    Queue(String),
}

impl Waiting {
    /// The queue that it waits in. For an exchange, an exchange before it has the same name.
    pub(crate) fn name(&self) -> String {
        match &self.target {
            Target::Exchange(exchange) => self.rung.exchange_of(exchange),
            Target::Queue(queue) => self.rung.queue_of(queue),
        }
    }

    /// Makes what it needs.
    pub(crate) async fn declare(&self, session: &Session) -> Result<(), Failure> {
        let made = session.aside(async |channel| {
            let (name, durable) = (self.name(), QueueDeclareOptions::durable());
            let longest = self.rung.duration();
            match &self.target {
                Target::Queue(queue) => {
                    let arguments = arguments::quorum_delay(queue, longest);
                    steps::declare_queue(session, channel, &name, durable, arguments).await
                }
                Target::Exchange(exchange) => {
                    let options = ExchangeDeclareOptions::default();
                    steps::declare_exchange(session, channel, &name, options).await?;
                    let arguments = arguments::quorum_delay_for_exchange(exchange, longest);
                    steps::declare_queue(session, channel, &name, durable, arguments).await?;
                    steps::bind(session, channel, &name, &name, "#").await
                }
            }
        });
        match made.await {
            // An account that may not make things is refused also those that are there.
            Err(refused) if refused.kind() == TransportErrorKind::Forbidden => {
                look(session, &self.name()).await.map_err(|_| refused)
            }
            made => made,
        }
    }

    /// Whether the queue that it goes to is there, and outlives its connection. Of an exchange this
    /// cannot be asked.
    pub(crate) async fn look_for_target(&self, session: &Session) -> Result<(), Failure> {
        match &self.target {
            Target::Exchange(_) => Ok(()),
            Target::Queue(queue) => look(session, queue).await,
        }
    }
}

async fn look(session: &Session, queue: &str) -> Result<(), Failure> {
    let passive = QueueDeclareOptions::default().passive();
    let none = FieldTable::default();
    let look =
        async |channel: &_| steps::declare_queue(session, channel, queue, passive, none).await;
    session.aside(look).await
}
