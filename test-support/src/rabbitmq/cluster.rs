use std::sync::Arc;

use super::{RabbitMq, RabbitMqOptions, options::new_cookie, port_mapper};
use crate::error::StartError;

/// Nodes of RabbitMQ that are one cluster, each with ports and data of its own.
///
/// ```no_run
/// use mmate_test_support::RabbitMqCluster;
///
/// let mut cluster = RabbitMqCluster::start(3)?;
/// cluster.node(0).kill();
/// cluster.node(0).start_again()?;
/// # Ok::<(), mmate_test_support::StartError>(())
/// ```
#[derive(Debug)]
pub struct RabbitMqCluster {
    nodes: Vec<RabbitMq>,
}

impl RabbitMqCluster {
    /// Starts so many nodes, one after the other, and waits until the last has joined.
    ///
    /// # Errors
    /// If RabbitMQ is not installed, or a node does not start; the error holds the end of its log.
    pub fn start(size: usize) -> Result<Self, StartError> {
        let port_mapper = Arc::new(port_mapper::start()?);
        let cookie = new_cookie();
        let mut nodes: Vec<RabbitMq> = Vec::new();
        for number in 1..=size {
            let mut options = RabbitMqOptions::default();
            options.cookie = Some(cookie.clone());
            // Of its own port mapper only, so the name may be the same in every cluster.
            options.name = Some(format!("mmate-{number}"));
            if let Some(first) = nodes.first() {
                options = options.config(&format!(
                    "cluster_formation.peer_discovery_backend = classic_config\n\
                     cluster_formation.classic_config.nodes.1 = {}",
                    first.name()
                ));
            }
            nodes.push(options.start_with(&port_mapper)?);
        }
        Ok(Self { nodes })
    }

    /// The nodes, in the order of their start.
    #[must_use]
    pub fn nodes(&self) -> &[RabbitMq] {
        &self.nodes
    }

    /// One of the nodes, to harm it; counted from 0.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn node(&mut self, number: usize) -> &mut RabbitMq {
        &mut self.nodes[number]
    }

    /// The ports of all nodes in one URL: `amqp://guest:guest@127.0.0.1:PORT,127.0.0.1:PORT/%2f`
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<_> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("amqp://guest:guest@{}/%2f", hosts.join(","))
    }
}
