//! A client of Socket.IO for the demonstrations: WebSocket only, texts only, one namespace. Everybody else uses the ordinary
//! `socket.io-client`, as the tests do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::program::Failure;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Waiting = Arc<Mutex<(u64, HashMap<u64, oneshot::Sender<Value>>)>>;

/// A connection. It ends when this is dropped.
#[derive(Debug)]
pub struct SocketClient {
    outgoing: mpsc::UnboundedSender<String>,
    waiting: Waiting,
}

/// What the server said.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received {
    /// The name of the event.
    pub event: String,
    /// Its data.
    pub data: Value,
}

impl SocketClient {
    /// Connects to a server such as `127.0.0.1:8080`. What it says is acknowledged as soon as it is here.
    ///
    /// # Errors
    /// When the server is not there, or refuses.
    pub async fn connect(
        server: &str,
        auth: &Value,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Received>), Failure> {
        let url = format!("ws://{server}/socket.io/?EIO=4&transport=websocket");
        let (mut socket, _) = timeout(PATIENCE, connect_async(url)).await??;
        expect(&mut socket, "0").await?;
        socket.send(Message::text(format!("40{auth}"))).await?;
        expect(&mut socket, "40").await?;
        let (outgoing, to_send) = mpsc::unbounded_channel();
        let (received, incoming) = mpsc::unbounded_channel();
        let waiting = Waiting::default();
        tokio::spawn(run(socket, to_send, received, Arc::clone(&waiting)));
        Ok((Self { outgoing, waiting }, incoming))
    }

    /// Emits an event, and waits for the server's answer.
    ///
    /// # Errors
    /// When the connection is lost before that, or it takes a minute.
    pub async fn ask(&self, event: &str, data: &Value) -> Result<Value, Failure> {
        let (answer, answered) = oneshot::channel();
        let number = {
            let (last, waiting) = &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            *last += 1;
            waiting.insert(*last, answer);
            *last
        };
        self.outgoing.send(format!("42{number}{}", json!([event, data])))?;
        Ok(timeout(PATIENCE, answered).await??)
    }
}

/// The rest of the next packet of this kind.
async fn expect(socket: &mut WebSocket, kind: &str) -> Result<String, Failure> {
    while let Some(message) = timeout(PATIENCE, socket.next()).await? {
        let message = message?;
        let Ok(text) = message.to_text() else { continue };
        if let Some(rest) = text.strip_prefix(kind) {
            return Ok(rest.to_owned());
        }
        if let Some(refusal) = text.strip_prefix("44") {
            return Err(format!("the server refuses: {refusal}").into());
        }
    }
    Err("the server closed the connection".into())
}

async fn run(
    mut socket: WebSocket,
    mut to_send: mpsc::UnboundedReceiver<String>,
    received: mpsc::UnboundedSender<Received>,
    waiting: Waiting,
) {
    loop {
        let sent = tokio::select! {
            text = to_send.recv() => match text {
                Some(text) => socket.send(Message::text(text)).await,
                None => break,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => match reply(&text, &received, &waiting) {
                    Some(reply) => socket.send(Message::text(reply)).await,
                    None => Ok(()),
                },
                Some(Ok(_)) => Ok(()),
                Some(Err(_)) | None => break,
            },
        };
        if sent.is_err() {
            break;
        }
    }
    // Whoever waits for an answer learns that there is none.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).1.clear();
    let _ = socket.close(None).await;
}

/// What is to be said to a packet.
fn reply(
    text: &str,
    received: &mpsc::UnboundedSender<Received>,
    waiting: &Waiting,
) -> Option<String> {
    if text == "2" {
        return Some("3".to_owned());
    }
    let kind = text.get(..2)?;
    let (number, data) = text[2..].split_at(text[2..].find('[')?);
    let mut data = serde_json::from_str::<Vec<Value>>(data).ok()?.into_iter();
    match kind {
        "42" => {
            let event = data.next()?.as_str()?.to_owned();
            let data = data.next().unwrap_or_default();
            let _ = received.send(Received { event, data });
            (!number.is_empty()).then(|| format!("43{number}[]"))
        }
        "43" => {
            let number = number.parse().ok()?;
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = waiting.1.remove(&number)?.send(data.next().unwrap_or_default());
            None
        }
        _ => None,
    }
}
