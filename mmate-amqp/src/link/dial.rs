//! Connecting once.

use std::sync::Arc;

use async_rs::Runtime;
use lapin::tcp::OwnedTLSConfig;
use lapin::{Connection, ConnectionProperties};

use super::Role;
use super::kit::Kit;
use super::plug::Plug;
use super::session::Session;
use crate::address::Address;
use crate::failure::{Failure, within};
use crate::settings::Settings;

/// All that is needed to connect.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    pub(crate) address: Address,
    pub(crate) settings: Arc<Settings>,
    pub(crate) service: Arc<str>,
    pub(crate) role: Role,
}

impl Dialer {
    /// Makes one attempt. It takes the connect timeout and the answer timeout together at most.
    pub(super) async fn dial(&self, generation: u64) -> Result<Session, Failure> {
        let plug = Plug::default();
        // Given up or failed, an attempt must not leave a thread of lapin's behind.
        let mut unless_done = PullOnDrop(Some(plug.clone()));
        let limit = self.settings.connect_timeout + self.settings.answer_timeout;
        let connection = within(limit, self.connect(plug.clone())).await?;
        unless_done.0 = None;
        Ok(Session::new(generation, connection, plug, self.role, self.settings.answer_timeout))
    }

    async fn connect(&self, plug: Plug) -> lapin::Result<Connection> {
        let mut uri = self.address.uri().clone();
        uri.query.heartbeat = Some(self.heartbeat_seconds());
        let name = format!("mmate {} ({})", self.service, self.role.as_str());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = Runtime::new(Kit::new(plug, self.settings.connect_timeout));
        let tls = OwnedTLSConfig::default();
        Connection::connect_uri_with_config(uri, properties, tls, runtime).await
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
