//! A way to a server that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;

/// Passes on what a client and a server say to each other.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: u16,
    answers: AtomicU8,
    connections: AtomicUsize,
}

/// What becomes of the server's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Answers {
    Pass,
    /// The next one is lost together with its connection. Later ones pass.
    CutOnce,
    /// The next one is lost, and its connection is silent from then on. Later ones pass.
    SwallowOnce,
    /// All are lost without a word.
    Swallow,
}

impl Proxy {
    pub(crate) fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answers, connections) = (AtomicU8::new(Answers::Pass as u8), AtomicUsize::new(0));
        let shared = Arc::new(Shared { server, answers, connections });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                serving.connect(client.unwrap());
            }
        });
        Self { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn answers(&self, answers: Answers) {
        self.shared.answers.store(answers as u8, Ordering::SeqCst);
    }

    /// Whether what was to happen once has happened.
    pub(crate) fn passes(&self) -> bool {
        self.shared.answers.load(Ordering::SeqCst) == Answers::Pass as u8
    }

    /// How many connections were made through it.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.server)) else { return };
        let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || pass(from, to, || true));
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let mut is_silent = false;
            let end = client.try_clone().unwrap();
            pass(server, client, || {
                let once = |which: Answers| {
                    let (which, pass) = (which as u8, Answers::Pass as u8);
                    let answers = &shared.answers;
                    answers
                        .compare_exchange(which, pass, Ordering::SeqCst, Ordering::SeqCst)
                        .is_ok()
                };
                if once(Answers::CutOnce) {
                    // It has ended already if this fails.
                    let _ = end.shutdown(Shutdown::Both);
                    return false;
                }
                is_silent |= once(Answers::SwallowOnce);
                let swallows = Answers::Swallow as u8;
                !is_silent && shared.answers.load(Ordering::SeqCst) != swallows
            });
        });
    }
}

/// Until one of them ends; what may not pass is lost.
fn pass(mut from: TcpStream, mut to: TcpStream, mut may_pass: impl FnMut() -> bool) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if may_pass() && to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    // One of them may be gone already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
