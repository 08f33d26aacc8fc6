//! Where the producer puts an event so that every listener gets it.

use mmate_amqp::Amqp;
use mmate_core::{HealthReport, Outgoing, Publisher};
use mmate_examples::program::Failure;

use crate::event::Event;
use crate::journal::Journal;
use crate::options::ProducerOptions;
use crate::rabbit::TOPIC;

/// Into its journal, from which listeners are sent it over WebSocket, or to RabbitMQ.
pub(crate) enum Publishing {
    Journal(Journal),
    Broker(Publisher),
}

impl Publishing {
    pub(crate) async fn open(options: &ProducerOptions) -> Result<Self, Failure> {
        match &options.broker {
            None => Ok(Self::Journal(Journal::open(&options.journal, options.keep).await?)),
            Some(url) => {
                Ok(Self::Broker(Publisher::connect(&Amqp::new(url), "event-producer").await?))
            }
        }
    }

    /// Returns once it is sure that the listeners will get it; in the journal it has a number then.
    pub(crate) async fn publish(&self, event: &Event) -> Result<Option<i64>, Failure> {
        match self {
            Self::Journal(journal) => Ok(Some(journal.append(event).await?)),
            Self::Broker(publisher) => {
                let message = Outgoing::event(TOPIC, "EventPublished", &event.payload);
                publisher.publish(message.id(event.event_id.clone())).await?;
                Ok(None)
            }
        }
    }

    pub(crate) fn journal(&self) -> Option<&Journal> {
        match self {
            Self::Journal(journal) => Some(journal),
            Self::Broker(_) => None,
        }
    }

    pub(crate) fn report(&self) -> HealthReport {
        match self {
            // It asks nobody: a journal that cannot be written shows in the answers to who publishes.
            Self::Journal(_) => HealthReport::new("event-producer"),
            Self::Broker(publisher) => publisher.health().report(),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Journal(journal) => journal.close().await,
            Self::Broker(publisher) => publisher.close().await,
        }
    }
}
