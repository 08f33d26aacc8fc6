//! A TCP proxy before the broker, to fail as a network does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A TCP proxy before the broker.
pub(crate) struct Proxy {
    address: SocketAddr,
    broker: String,
    network: Arc<Network>,
    _accepting: AbortOnDropHandle<()>,
}

/// What the network does to connections.
struct Network {
    cut: watch::Sender<CancellationToken>,
    refuses: watch::Sender<bool>,
    holds_to_broker: watch::Sender<bool>,
    holds_from_broker: watch::Sender<bool>,
    /// After these bytes the broker's are held back, once.
    last_from_broker: Mutex<Option<Vec<u8>>>,
    accepted: AtomicUsize,
}

#[allow(dead_code, reason = "not every test program needs everything")]
impl Proxy {
    /// Stands before the broker of this URL.
    pub(crate) async fn before(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(Network {
            cut: watch::Sender::default(),
            refuses: watch::Sender::default(),
            holds_to_broker: watch::Sender::default(),
            holds_from_broker: watch::Sender::default(),
            last_from_broker: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        let accepting = accept(listener, host_and_port(broker).to_owned(), Arc::clone(&network));
        let _accepting = AbortOnDropHandle::new(tokio::spawn(accepting));
        Self { address, broker: broker.to_owned(), network, _accepting }
    }

    /// The broker's URL, by way of the proxy.
    pub(crate) fn url(&self) -> String {
        self.broker.replace(host_and_port(&self.broker), &self.address.to_string())
    }

    /// Cuts all connections that there are, and none that come later.
    pub(crate) fn cut(&self) {
        self.network.cut.send_replace(CancellationToken::new()).cancel();
    }

    /// Whether new connections end as soon as they are made.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.network.refuses.send_replace(refuses);
    }

    /// Whether everything is held back in this direction, as in a network that drops it.
    pub(crate) fn hold_to_broker(&self, holds: bool) {
        self.network.holds_to_broker.send_replace(holds);
    }

    /// As above, for the other direction.
    pub(crate) fn hold_from_broker(&self, holds: bool) {
        self.network.holds_from_broker.send_replace(holds);
    }

    /// Holds back what the broker says after these bytes, which are the last that come through.
    pub(crate) fn hold_from_broker_after(&self, last: impl Into<Vec<u8>>) {
        *self.network.last_from_broker.lock().unwrap() = Some(last.into());
    }

    /// Returns when what the broker says is held back.
    pub(crate) async fn holds_from_broker(&self) {
        self.network.holds_from_broker.subscribe().wait_for(|holds| *holds).await.unwrap();
    }

    /// As above, for both directions.
    pub(crate) fn hold_all(&self, holds: bool) {
        self.hold_to_broker(holds);
        self.hold_from_broker(holds);
    }

    /// Returns when every connection made before this call is counted, while new ones are refused: they
    /// are accepted in the order in which they come, and one of our own is the last.
    pub(crate) async fn has_accepted_all(&self) {
        let mut last = TcpStream::connect(self.address).await.unwrap();
        let _ = last.read_u8().await.unwrap_err();
    }

    /// How many connections were made so far.
    pub(crate) fn accepted(&self) -> usize {
        self.network.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, broker: String, network: Arc<Network>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // The files of this process are used up: for a while only.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        network.accepted.fetch_add(1, Ordering::SeqCst);
        if *network.refuses.borrow() {
            continue;
        }
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
                () = pass(from_client, to_server, network.holds_to_broker.subscribe(), |_| None) => {}
                () = pass(from_server, to_client, network.holds_from_broker.subscribe(), |bytes| {
                    network.holds_from_now_on(bytes)
                }) => {}
            }
        });
    }
}

impl Network {
    /// Where the last bytes that come through end, if they are among these.
    fn holds_from_now_on(&self, bytes: &[u8]) -> Option<usize> {
        let mut last = self.last_from_broker.lock().unwrap();
        let length = last.as_ref()?.len();
        let place = bytes.windows(length).position(|window| Some(window) == last.as_deref())?;
        *last = None;
        self.holds_from_broker.send_replace(true);
        Some(place + length)
    }
}

/// Passes bytes on, unless they are held back, until one side ends. `last` says where those end that are passed on before
/// the others are held back.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut holds: watch::Receiver<bool>,
    last: impl Fn(&[u8]) -> Option<usize>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mut bytes = &buffer[..count];
        if let Some(end) = last(bytes) {
            let (before, after) = bytes.split_at(end);
            bytes = after;
            if to.write_all(before).await.is_err() {
                return;
            }
        }
        if holds.wait_for(|holds| !holds).await.is_err() {
            return;
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

fn host_and_port(url: &str) -> &str {
    let rest = url.split_once("://").unwrap().1;
    let authority = rest.split('/').next().unwrap();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}
