//! A way to end a connection that nobody can talk to any more.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use super::intake::Intake;

/// A second handle to the socket of a connection. lapin's IO thread waits for its peer for ever in
/// some states (an unfinished handshake, a close that is not answered, a blocked connection); when
/// the plug is pulled it sees the end of the stream, and ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plug {
    socket: Arc<Mutex<Socket>>,
    intake: Intake,
}

#[derive(Debug, Default)]
enum Socket {
    #[default]
    NotYet,
    Open(TcpStream),
    Pulled,
}

impl Plug {
    /// What comes in on that socket.
    pub(crate) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Takes a handle to the socket. If the plug was pulled before, the socket is shut down now.
    pub(crate) fn put(&self, socket: TcpStream) {
        let mut held = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Socket::Pulled = *held {
            shut_down(&socket);
        } else {
            *held = Socket::Open(socket);
        }
    }

    /// Ends the connection at once.
    pub(crate) fn pull(&self) {
        let mut held = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Socket::Open(socket) = std::mem::replace(&mut *held, Socket::Pulled) {
            shut_down(&socket);
        }
    }
}

fn shut_down(socket: &TcpStream) {
    // It fails if the connection has ended already.
    let _ = socket.shutdown(Shutdown::Both);
}
