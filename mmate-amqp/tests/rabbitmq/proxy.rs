//! A TCP proxy before the broker, to fail as a network does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
                () = pass(from_client, to_server, network.holds_to_broker.subscribe()) => {}
                () = pass(from_server, to_client, network.holds_from_broker.subscribe()) => {}
            }
        });
    }
}

/// Passes bytes on, unless they are held back, until one side ends.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut holds: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if holds.wait_for(|holds| !holds).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

fn host_and_port(url: &str) -> &str {
    let rest = url.split_once("://").unwrap().1;
    let authority = rest.split('/').next().unwrap();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}
