//! The producer's side of a listener's WebSocket.
//!
//! The listener is sent the journal from where it was, one event after another, each as JSON:
//! `{"number": 17, "event": {"event_id": …, "payload": …}}`. It answers with how far it is done:
//! `{"done": 16}`, at least every few seconds. There is one way for what is new and for what it has
//! missed, so nothing can fall between the two.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use metrics::{counter, gauge};
use mmate_core::error_chain;
use mmate_examples::program::Failure;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::journal::Journal;
use crate::tally::{LISTENERS, MISSED};

/// A connection without a sign of life for as long is given up, on both sides.
pub(crate) const SILENCE: Duration = Duration::from_secs(15);

/// How often there is a sign of life.
pub(crate) const BEAT: Duration = Duration::from_secs(4);

/// What a listener says: it is done with all events up to this one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) done: i64,
}

pub(crate) async fn serve(socket: WebSocket, journal: &Journal, listener: &str) {
    tracing::info!(listener, "a listener is connected");
    let connected = gauge!(LISTENERS);
    connected.increment(1);
    let (sender, receiver) = socket.split();
    let ended = tokio::select! {
        ended = show(sender, journal, listener) => ended,
        ended = hear(receiver, journal, listener) => ended,
    };
    connected.decrement(1);
    match ended {
        Ok(()) => tracing::info!(listener, "a listener is gone"),
        // How far it said that it is may not be noted any more: then it is shown a little again.
        Err(_) if journal.is_closed() => tracing::info!(listener, "the producer ends"),
        Err(failure) => {
            let reason = error_chain(&*failure);
            tracing::warn!(listener, reason, "a listener is gone");
        }
    }
}

/// Sends the journal from where the listener is.
async fn show(
    mut sender: SplitSink<WebSocket, Message>,
    journal: &Journal,
    listener: &str,
) -> Result<(), Failure> {
    let mut latest = journal.watch();
    let mut shown = journal.position(listener).await?;
    loop {
        // First marked as seen, then read: what is published in between wakes it up again.
        latest.mark_unchanged();
        let events = journal.after(shown).await?;
        if let Some(first) = events.first().filter(|first| first.number > shown + 1) {
            let missed = first.number - shown - 1;
            counter!(MISSED).increment(missed.unsigned_abs());
            tracing::error!(listener, missed, "events are no longer in the journal");
        }
        if events.is_empty() {
            match timeout(BEAT, latest.changed()).await {
                Ok(changed) => changed?,
                Err(_) => sender.send(Message::Ping(Vec::new().into())).await?,
            }
        }
        for event in events {
            sender.send(Message::text(serde_json::to_string(&event)?)).await?;
            shown = event.number;
        }
    }
}

/// Notes how far the listener is, until it is gone.
async fn hear(
    mut receiver: SplitStream<WebSocket>,
    journal: &Journal,
    listener: &str,
) -> Result<(), Failure> {
    let mut noted = 0;
    while let Some(message) = timeout(SILENCE, receiver.next()).await? {
        if let Message::Text(text) = message? {
            let Progress { done } = serde_json::from_str(&text)?;
            if done > noted {
                journal.set_position(listener, done).await?;
                noted = done;
            }
        }
    }
    Ok(())
}
