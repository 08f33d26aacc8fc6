//! What clients may send over their socket, and how it is answered.

use std::sync::Arc;

use mmate_examples::sign_in::Name;
use mmate_examples::sockets::{self, AtOnce};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef, TryData};

use crate::delivery;
use crate::desk::Answer;
use crate::server::Room;
use crate::upload::{Kind, Request, Upload};

/// So many photos of a client are stored at the same time.
const AT_ONCE: usize = 8;

impl Room {
    /// Has the sockets handled. A client says the number of the last photo that it has seen.
    pub(crate) fn open(&self, io: &SocketIo) {
        let room = self.clone();
        sockets::welcome(io, self.signer.clone(), move |socket, name, after: i64| {
            room.clone().welcome(socket, name, after)
        });
    }

    async fn welcome(self, socket: SocketRef, name: Name, after: i64) {
        let at_once = AtOnce::new(AT_ONCE);
        for kind in Kind::ALL {
            let (room, sender, at_once) = (self.clone(), name.clone(), at_once.clone());
            let send = async move |TryData(request): TryData<Request>, ack: AckSender| {
                let answer = match at_once.begin() {
                    Ok(_begun) => {
                        room.take(kind, &sender, request.map_err(|e| e.to_string())).await
                    }
                    Err(reason) => room.desk.failed(reason),
                };
                // Whoever has left asks again.
                let _ = ack.send(&answer);
            };
            socket.on(kind.event(), send);
        }
        let album = Arc::clone(&self.desk.album);
        delivery::deliver(socket, name, after, album, self.mailboxes).await;
    }

    async fn take(&self, kind: Kind, sender: &Name, request: Result<Request, String>) -> Answer {
        let upload = request.and_then(|request| Upload::of(kind, request, self.largest));
        match upload {
            Ok(upload) => self.desk.send(sender, upload).await,
            Err(reason) => self.desk.failed(reason),
        }
    }
}
