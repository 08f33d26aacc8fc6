//! Connecting once.

use std::sync::{Arc, Mutex, PoisonError};

use async_rs::Runtime;
use lapin::tcp::AsyncTcpStream;
use lapin::uri::AMQPScheme;
use lapin::{Connection, ConnectionProperties};
use mmate_core::transport::TransportErrorKind;

use super::Role;
use super::fate::Fate;
use super::kit::Kit;
use super::plug::Plug;
use super::session::Session;
use super::wire::{self, Security};
use crate::address::{Address, Node};
use crate::failure::Failure;
use crate::settings::Settings;

/// All that is needed to connect.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    pub(crate) address: Address,
    pub(crate) security: Security,
    pub(crate) settings: Arc<Settings>,
    pub(crate) service: Arc<str>,
    pub(crate) role: Role,
    /// Shared by both connections of a service.
    pub(crate) fate: Arc<Fate>,
}

impl Dialer {
    /// Tries each node once, in no order, until one takes us; `last`, to which we were connected
    /// before, comes last. Fails as the node did that gave the gravest reason.
    pub(super) async fn dial(
        &self,
        generation: u64,
        last: Option<&Node>,
    ) -> Result<Session, Failure> {
        let mut nodes: Vec<&Node> = self.address.nodes().iter().collect();
        fastrand::shuffle(&mut nodes);
        nodes.sort_by_key(|node| Some(*node) == last);
        let several = nodes.len() > 1;
        let mut gravest: Option<Failure> = None;
        for node in nodes {
            let failure = match self.dial_node(node, generation).await {
                Ok(session) => return Ok(session),
                Err(failure) => failure,
            };
            if several {
                tracing::warn!(
                    %node, role = self.role.as_str(), error = %failure,
                    "cannot connect to a node of the broker"
                );
            }
            let passes =
                |failure: &Failure| failure.kind_of_connect() == TransportErrorKind::Unreachable;
            if gravest.as_ref().is_none_or(passes) {
                gravest = Some(failure);
            }
        }
        // An address has a node at least.
        Err(gravest.unwrap_or(Failure::Lost))
    }

    /// Makes one attempt. It takes the connect timeout and the answer timeout together at most.
    async fn dial_node(&self, node: &Node, generation: u64) -> Result<Session, Failure> {
        let plug = Plug::default();
        // Given up or failed, an attempt must not leave a thread of lapin's behind.
        let mut unless_done = PullOnDrop(Some(plug.clone()));
        let limit = self.settings.connect_timeout + self.settings.answer_timeout;
        let connecting = tokio::time::timeout(limit, self.connect(node, &plug));
        let connection = connecting.await.unwrap_or(Err(Failure::NoAnswer(limit)))?;
        unless_done.0 = None;
        let limit = self.settings.answer_timeout;
        Ok(Session::new(generation, node.clone(), connection, plug, self.role, limit))
    }

    async fn connect(&self, node: &Node, plug: &Plug) -> Result<Connection, Failure> {
        let limit = self.settings.connect_timeout;
        let stream = wire::connect(node, &self.security, plug, limit).await?;
        let mut uri = self.address.uri().clone();
        // What is secure is so below lapin.
        uri.scheme = AMQPScheme::AMQP;
        uri.query.heartbeat = Some(self.heartbeat_seconds());
        let name = format!("mmate {} ({})", self.service, self.role.as_str());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        // lapin asks for it once; what it asks for after that is another attempt, and ours to make.
        let stream = Mutex::new(Some(stream));
        let hand_over = async move |_, _| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            let none = || std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
            Ok(AsyncTcpStream::Plain(stream.ok_or_else(none)?))
        };
        let runtime = Runtime::new(Kit::new());
        let connecting = Connection::connector(uri, runtime, hand_over, properties);
        connecting.await.map_err(Failure::Broker)
    }

    /// An explicit heartbeat in the URL wins, as with other clients.
    fn heartbeat_seconds(&self) -> u16 {
        let set = self.settings.heartbeat.as_secs().clamp(1, u16::MAX.into());
        let asked = self.address.uri().query.heartbeat;
        asked.unwrap_or_else(|| u16::try_from(set).unwrap_or(u16::MAX))
    }
}

struct PullOnDrop(Option<Plug>);

impl Drop for PullOnDrop {
    fn drop(&mut self) {
        if let Some(plug) = &self.0 {
            plug.pull();
        }
    }
}
