//! Stands between a client and PostgreSQL, and cuts commits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Where commits are cut. Each connection that a cut hits is closed.
pub(crate) struct Proxy {
    address: SocketAddr,
    cuts: Arc<Cuts>,
}

/// How many commits are to be cut, and were.
#[derive(Default)]
struct Cuts {
    left: AtomicUsize,
    before: AtomicUsize,
    within: AtomicUsize,
    after: AtomicUsize,
}

/// Where a commit is cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// The server hears nothing of it.
    Before,
    /// The server gets half of it.
    Within,
    /// The server has answered, and the answer does not get through.
    After,
}

const COMMIT: &[u8] = b"COMMIT AND CHAIN";
const BEGIN: &[u8] = b"BEGIN;";

impl Proxy {
    /// Cuts so many commits, about every second one.
    pub(crate) async fn start(server: SocketAddr, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let all = Arc::new(Cuts { left: AtomicUsize::new(cuts), ..Cuts::default() });
        let cuts = Arc::clone(&all);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                tokio::spawn(between(client, server, Arc::clone(&cuts)));
            }
        });
        Self { address, cuts: all }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many are left to be cut.
    pub(crate) fn left(&self) -> usize {
        self.cuts.left.load(Ordering::SeqCst)
    }

    /// How many were cut before, within and after the commit.
    pub(crate) fn counts(&self) -> [usize; 3] {
        [&self.cuts.before, &self.cuts.within, &self.cuts.after]
            .map(|count| count.load(Ordering::SeqCst))
    }
}

impl Cuts {
    fn draw(&self) -> Option<Cut> {
        let take = |left: usize| left.checked_sub(1);
        let hits = fastrand::bool()
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
        if !hits {
            return None;
        }
        let (cut, count) = match fastrand::u8(..4) {
            0 => (Cut::Before, &self.before),
            1 => (Cut::Within, &self.within),
            _ => (Cut::After, &self.after),
        };
        count.fetch_add(1, Ordering::SeqCst);
        Some(cut)
    }
}

async fn between(mut client: TcpStream, mut server: TcpStream, cuts: Arc<Cuts>) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let (mut asked, mut answered) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        tokio::select! {
            read = from_client.read(&mut asked) => {
                let Some(bytes) = some(&asked, read) else { return };
                let is_commit = bytes.windows(COMMIT.len()).any(|window| window == COMMIT);
                let cut = if is_commit { cuts.draw() } else { None };
                match cut {
                    None => if to_server.write_all(bytes).await.is_err() { return },
                    Some(Cut::Before) => return,
                    Some(Cut::Within) => {
                        let _ = to_server.write_all(&bytes[..bytes.len() / 2]).await;
                        return;
                    }
                    Some(Cut::After) => return swallow(bytes, &mut to_server, &mut from_server).await,
                }
            }
            read = from_server.read(&mut answered) => {
                let Some(bytes) = some(&answered, read) else { return };
                if to_client.write_all(bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A way to a server that keeps the answer to the first `BEGIN` to itself, with all that follows on
/// that connection, and closes nothing. Returns its address.
pub(crate) async fn silent_at_the_first_begin(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let is_spent = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(server).await else { continue };
            tokio::spawn(until_the_first_begin(client, server, Arc::clone(&is_spent)));
        }
    });
    address
}

async fn until_the_first_begin(
    mut client: TcpStream,
    mut server: TcpStream,
    is_spent: Arc<AtomicBool>,
) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let (mut asked, mut answered) = ([0; 16 * 1024], [0; 16 * 1024]);
    let mut is_silent = false;
    loop {
        tokio::select! {
            read = from_client.read(&mut asked) => {
                let Some(bytes) = some(&asked, read) else { return };
                let begins = bytes.windows(BEGIN.len()).any(|window| window == BEGIN);
                is_silent |= begins && !is_spent.swap(true, Ordering::SeqCst);
                if to_server.write_all(bytes).await.is_err() {
                    return;
                }
            }
            read = from_server.read(&mut answered) => {
                let Some(bytes) = some(&answered, read) else { return };
                if !is_silent && to_client.write_all(bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn some(buffer: &[u8], read: std::io::Result<usize>) -> Option<&[u8]> {
    read.ok().filter(|length| *length > 0).map(|length| &buffer[..length])
}

/// Asks, and keeps the answer.
async fn swallow(
    bytes: &[u8],
    to_server: &mut (impl AsyncWrite + Unpin),
    from_server: &mut (impl AsyncRead + Unpin),
) {
    if to_server.write_all(bytes).await.is_ok() {
        let _ = from_server.read(&mut [0; 1024]).await;
    }
}
