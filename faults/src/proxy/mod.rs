//! A TCP proxy before the broker, to fail as networks do, byte by byte.

mod frame;
mod pass;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use frame::Frame;

/// A TCP proxy before the broker.
pub struct Proxy {
    address: SocketAddr,
    broker: String,
    network: Arc<Network>,
    _accepting: AbortOnDropHandle<()>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum Direction {
    /// What the client sends.
    ToBroker,
    /// What the broker sends.
    FromBroker,
}

/// What becomes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It arrives.
    Pass,
    /// It does not, and nobody is told.
    Drop,
    /// These bytes arrive instead.
    Replace(Vec<u8>),
    /// Its first half arrives, and then the connection ends.
    CutInside,
}

/// How fast and how reliably bytes go, in each direction.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Weather {
    /// How long each takes.
    pub latency: Duration,
    /// How many a second; 0 for as many as come.
    pub bytes_per_second: u32,
    /// Which part of all segments get lost on the way, and come when they are sent again.
    pub loss: f64,
}

impl Weather {
    /// Which part of all segments get lost on the way.
    #[must_use]
    pub fn lossy(loss: f64) -> Self {
        Self { loss, ..Self::default() }
    }

    /// How many bits pass a second.
    #[must_use]
    pub fn narrow(bits_per_second: u32) -> Self {
        Self { bytes_per_second: bits_per_second / 8, ..Self::default() }
    }
}

type Rule = Box<dyn Fn(Direction, &Frame<'_>) -> Fate + Send + Sync>;

/// What the network does to connections.
struct Network {
    cut: watch::Sender<CancellationToken>,
    holds: [watch::Sender<bool>; 2],
    weather: watch::Sender<Weather>,
    rule: RwLock<Rule>,
    accepted: AtomicUsize,
}

impl Network {
    fn holds(&self, direction: Direction) -> &watch::Sender<bool> {
        &self.holds[direction as usize]
    }

    fn fate(&self, direction: Direction, frame: &Frame<'_>) -> Fate {
        (self.rule.read().unwrap())(direction, frame)
    }
}

impl Proxy {
    /// Stands before the broker of this URL.
    ///
    /// # Panics
    /// If it gets no port.
    pub async fn before(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(Network {
            cut: watch::Sender::default(),
            holds: [watch::Sender::default(), watch::Sender::default()],
            weather: watch::Sender::default(),
            rule: RwLock::new(Box::new(|_, _| Fate::Pass)),
            accepted: AtomicUsize::new(0),
        });
        let accepting = accept(listener, host_and_port(broker).to_owned(), Arc::clone(&network));
        let _accepting = AbortOnDropHandle::new(tokio::spawn(accepting));
        Self { address, broker: broker.to_owned(), network, _accepting }
    }

    /// The broker's URL, by way of the proxy.
    #[must_use]
    pub fn url(&self) -> String {
        self.broker.replace(host_and_port(&self.broker), &self.address.to_string())
    }

    /// Cuts all connections that there are, and none that come later.
    pub fn cut(&self) {
        self.network.cut.send_replace(CancellationToken::new()).cancel();
    }

    /// Whether nothing gets through in this direction, on connections old and new. What is held back arrives when this
    /// ends, as what TCP sends again does.
    pub fn hold(&self, direction: Direction, holds: bool) {
        self.network.holds(direction).send_replace(holds);
    }

    /// As above, for both directions: a black hole.
    pub fn hold_all(&self, holds: bool) {
        self.hold(Direction::ToBroker, holds);
        self.hold(Direction::FromBroker, holds);
    }

    /// How fast and how reliably bytes go from now on.
    pub fn weather(&self, weather: Weather) {
        self.network.weather.send_replace(weather);
    }

    /// What becomes of each frame from now on.
    ///
    /// # Panics
    /// If a rule did.
    pub fn rule(&self, rule: impl Fn(Direction, &Frame<'_>) -> Fate + Send + Sync + 'static) {
        *self.network.rule.write().unwrap() = Box::new(rule);
    }

    /// Every frame passes again.
    pub fn no_rule(&self) {
        self.rule(|_, _| Fate::Pass);
    }

    /// How many connections were made so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.network.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, broker: String, network: Arc<Network>) {
    while let Ok((client, _)) = listener.accept().await {
        network.accepted.fetch_add(1, Ordering::SeqCst);
        let (broker, network) = (broker.clone(), Arc::clone(&network));
        let cut = network.cut.borrow().clone();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(broker).await else { return };
            // Each segment at once, as without a proxy.
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = cut.cancelled() => {}
                () = pass::pass(from_client, to_server, Direction::ToBroker, &network) => {}
                () = pass::pass(from_server, to_client, Direction::FromBroker, &network) => {}
            }
        });
    }
}

fn host_and_port(url: &str) -> &str {
    let rest = url.split_once("://").unwrap().1;
    let authority = rest.split('/').next().unwrap();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}
