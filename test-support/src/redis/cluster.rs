use super::{Redis, Role, SERVER};
use crate::error::{StartError, StartFailure};

/// Masters that are one Redis cluster, each with its share of the slots.
///
/// ```no_run
/// use mmate_test_support::RedisCluster;
///
/// let cluster = RedisCluster::start(3)?;
/// let urls = cluster.urls();
/// # Ok::<(), mmate_test_support::StartError>(())
/// ```
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

const SLOTS: usize = 16_384;

impl RedisCluster {
    /// Starts so many masters, and waits until each knows all others and the cluster serves.
    ///
    /// # Errors
    /// If Redis is not installed, or a node does not start; the error holds the end of its log.
    pub fn start(size: usize) -> Result<Self, StartError> {
        let mut options = Redis::options();
        options.role = Role::ClusterNode;
        let nodes: Vec<_> = (0..size).map(|_| options.start()).collect::<Result<_, _>>()?;
        let cluster = Self { nodes };
        cluster.join()?;
        for node in &cluster.nodes {
            node.server.wait_until(|| {
                node.ask("CLUSTER INFO").is_ok_and(|info| {
                    info.contains("cluster_state:ok")
                        && info.contains(&format!("cluster_known_nodes:{size}\r"))
                })
            })?;
        }
        Ok(cluster)
    }

    fn join(&self) -> Result<(), StartError> {
        let size = self.nodes.len();
        for (number, node) in self.nodes.iter().enumerate() {
            let (first, next) = (SLOTS * number / size, SLOTS * (number + 1) / size);
            tell(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1))?;
            tell(node, &format!("CLUSTER ADDSLOTSRANGE {first} {}", next - 1))?;
        }
        for node in &self.nodes[1..] {
            let bus = node.server.further_port(1).unwrap_or_default();
            tell(&self.nodes[0], &format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port()))?;
        }
        Ok(())
    }

    /// The nodes, in the order of their slots.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// One of the nodes, to harm it; counted from 0.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn node(&mut self, number: usize) -> &mut Redis {
        &mut self.nodes[number]
    }

    /// The addresses of all nodes, each as `redis://127.0.0.1:PORT/`.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }
}

/// A command that must be obeyed.
fn tell(node: &Redis, command: &str) -> Result<(), StartError> {
    let failure = |source| StartFailure::Io { attempted: format!("tell it {command:?}"), source };
    let answer = node.ask(command).map_err(failure);
    answer.map(drop).map_err(|failure| StartError { server: SERVER, failure })
}
