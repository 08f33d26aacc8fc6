//! The connection to a server, to whoever is the master, or to a cluster.

use std::fmt;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::SentinelClient;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, RedisResult, Value};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::failure::not_reached;
use crate::store::StoreError;

/// Where the records are.
pub(super) enum Target {
    Node(Box<Client>),
    /// Each of these asks the same sentinels, the first one without a password.
    Sentinel(Vec<SentinelClient>),
    Cluster(Box<ClusterClient>),
}

/// A connection that all calls of a process share, made when it is needed.
///
/// It is given up at the first sign that it is broken, also when no answer comes: a peer that is
/// gone without a word does not close it. Attempts to make a new one have pauses between them; who
/// comes in a pause is told at once why the last attempt failed.
pub(super) struct Link {
    target: Mutex<Target>,
    state: Mutex<State>,
    is_cluster: bool,
    fails_over: bool,
    /// The addresses, without credentials.
    described: String,
}

#[derive(Default)]
struct State {
    wire: Option<Wire>,
    /// How many connections there were.
    count: u64,
    failed: Option<Failed>,
}

struct Failed {
    error: RedisError,
    pause: Duration,
    until: Instant,
}

/// A connection; clones are the same one.
#[derive(Clone)]
pub(super) struct Wire {
    number: u64,
    kind: WireKind,
}

#[derive(Clone)]
enum WireKind {
    Node(MultiplexedConnection),
    Cluster(ClusterConnection),
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Link {
    pub(super) fn new(target: Target, described: String) -> Self {
        let is_cluster = matches!(target, Target::Cluster(_));
        let fails_over = !matches!(target, Target::Node(_));
        let (target, state) = (Mutex::new(target), Mutex::default());
        Self { target, state, is_cluster, fails_over, described }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Whether another server may take over, without what had not reached it.
    pub(super) fn fails_over(&self) -> bool {
        self.fails_over
    }

    /// The connection there is, or a new one.
    pub(super) async fn wire(&self, limit: Duration) -> Result<Wire, StoreError> {
        let unreachable = not_reached("reach Redis");
        // Who else needs a connection waits here for this one.
        let mut state = self.state.lock().await;
        if let Some(wire) = &state.wire {
            return Ok(wire.clone());
        }
        if let Some(failed) = state.failed.as_ref().filter(|failed| Instant::now() < failed.until) {
            return Err(unreachable(failed.error.clone()));
        }
        match self.connect(limit).await {
            Ok(kind) => {
                state.count += 1;
                let wire = Wire { number: state.count, kind };
                (state.wire, state.failed) = (Some(wire.clone()), None);
                Ok(wire)
            }
            Err(error) => {
                let before = state.failed.as_ref().map(|failed| failed.pause * 2);
                let pause = before.unwrap_or(FIRST_PAUSE).min(LONGEST_PAUSE);
                let until = Instant::now() + pause.mul_f64(1.0 - 0.5 * fastrand::f64());
                state.failed = Some(Failed { error: error.clone(), pause, until });
                Err(unreachable(error))
            }
        }
    }

    /// Has a new connection made for those that come from now on.
    pub(super) async fn give_up(&self, wire: &Wire) {
        let mut state = self.state.lock().await;
        if state.wire.as_ref().is_some_and(|current| current.number == wire.number) {
            state.wire = None;
        }
    }

    async fn connect(&self, limit: Duration) -> RedisResult<WireKind> {
        // Answers are waited for with a limit of our own.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limit))
            .set_response_timeout(None);
        let connecting = async {
            match &mut *self.target.lock().await {
                Target::Node(client) => {
                    let connection = client.get_multiplexed_async_connection_with_config(&config);
                    connection.await.map(WireKind::Node)
                }
                Target::Sentinel(clients) => master(clients, &config).await.map(WireKind::Node),
                Target::Cluster(client) => {
                    client.get_async_connection().await.map(WireKind::Cluster)
                }
            }
        };
        timeout(limit, connecting).await.unwrap_or_else(|_| Err(silence(limit)))
    }
}

/// The first of them that finds the master and is let in.
async fn master(
    clients: &mut [SentinelClient],
    config: &AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let mut failure = None;
    for client in clients {
        match client.get_async_connection_with_config(config).await {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| (ErrorKind::EmptySentinelList, "there is no sentinel").into()))
}

/// No answer came in time.
pub(super) fn silence(limit: Duration) -> RedisError {
    let text = format!("no answer within {limit:?}");
    std::io::Error::new(std::io::ErrorKind::TimedOut, text).into()
}

impl Wire {
    /// Runs a command on the server of its first key. What is an error within its answer stays there.
    pub(super) async fn run(&self, cmd: &Cmd) -> RedisResult<Value> {
        let answer = match &self.kind {
            WireKind::Node(connection) => connection.clone().req_packed_command(cmd).await?,
            WireKind::Cluster(connection) => connection.clone().req_packed_command(cmd).await?,
        };
        match answer {
            Value::ServerError(error) => Err(error.into()),
            answer => Ok(answer),
        }
    }

    /// Asks every node that may have records.
    pub(super) async fn ask_all(&self, cmd: Cmd) -> RedisResult<Vec<Value>> {
        use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
        match &self.kind {
            WireKind::Node(connection) => {
                let value = connection.clone().req_packed_command(&cmd).await?;
                Ok(vec![value.extract_error()?])
            }
            WireKind::Cluster(connection) => {
                let masters = MultipleNodeRoutingInfo::AllMasters;
                let routing = RoutingInfo::MultiNode((masters, None));
                let answers = connection.clone().route_command(cmd, routing).await?;
                match answers.extract_error()? {
                    Value::Map(nodes) => Ok(nodes.into_iter().map(|(_, value)| value).collect()),
                    other => Ok(vec![other]),
                }
            }
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.described)
    }
}
