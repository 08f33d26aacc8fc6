//! The transports.

use async_trait::async_trait;
use mmate_amqp::Amqp;
use mmate_core::{Connection, InProcess, Transport, TransportError};

/// A broker that services of a test connect to.
#[derive(Clone)]
pub(crate) enum Broker {
    InProcess(InProcess),
    RabbitMq,
}

impl Broker {
    pub(crate) fn in_process() -> Self {
        Self::InProcess(InProcess::new())
    }

    /// The broker inside the process, which does what it is told.
    pub(crate) fn inner(&self) -> &InProcess {
        match self {
            Self::InProcess(broker) => broker,
            Self::RabbitMq => panic!("only the broker inside the process does that"),
        }
    }

    pub(crate) fn rabbitmq() -> Self {
        Self::RabbitMq
    }
}

#[async_trait]
impl Transport for Broker {
    async fn connect(&self, service: &str) -> Result<Box<dyn Connection>, TransportError> {
        match self {
            Self::InProcess(broker) => broker.connect(service).await,
            Self::RabbitMq => Amqp::new(mmate_test_support::amqp_url()).connect(service).await,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::InProcess(broker) => broker.describe(),
            Self::RabbitMq => "RabbitMQ".to_owned(),
        }
    }
}
