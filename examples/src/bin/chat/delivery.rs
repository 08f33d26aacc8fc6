//! Messages on their way to a client.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use metrics::counter;
use mmate_core::error_chain;
use mmate_examples::sign_in::Name;
use mmate_examples::sockets::{Joined, Mailboxes, show, until_disconnected};
use socketioxide::extract::SocketRef;

use crate::directory::Directory;

pub(crate) const DELIVERED: &str = "chat_delivered_total";

/// How often it is looked for messages of which nobody told.
const LOOK: Duration = Duration::from_secs(5);

/// The number of the last message that a client has, by conversation.
pub(crate) type Seen = HashMap<String, i64>;

/// Shows the user what the client has not seen, of each conversation in the order of its numbers, until the connection ends.
pub(crate) async fn deliver(
    socket: SocketRef,
    name: Name,
    seen: Seen,
    directory: Directory,
    mailboxes: Mailboxes,
) {
    // Before it is looked for what is there: what comes in between is told.
    let mailbox = mailboxes.join(&name);
    let delivery = Delivery { socket: socket.clone(), name, seen, directory };
    until_disconnected(&socket, delivery.run(&mailbox)).await;
}

struct Delivery {
    socket: SocketRef,
    name: Name,
    seen: Seen,
    directory: Directory,
}

impl Delivery {
    async fn run(mut self, mailbox: &Joined) {
        let mut places = self.everywhere().await;
        while self.socket.connected() {
            for place in places {
                match self.show(&place).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => {
                        tracing::warn!(error = error_chain(&error), "messages are not shown now");
                    }
                }
            }
            places = mailbox.take(LOOK).await;
            if places.is_empty() {
                places = self.everywhere().await;
            }
        }
    }

    async fn everywhere(&self) -> BTreeSet<String> {
        match self.directory.places(&self.name).await {
            Ok(places) => places.into_iter().collect(),
            Err(error) => {
                tracing::warn!(error = error_chain(&error), "messages are not shown now");
                BTreeSet::new()
            }
        }
    }

    /// Shows what is new in a conversation. `false` if the client is gone.
    async fn show(&mut self, conversation: &str) -> sqlx::Result<bool> {
        loop {
            let seen = self.seen.get(conversation).copied().unwrap_or_default();
            let messages = self.directory.after(conversation, seen, &self.name).await?;
            if messages.is_empty() {
                return Ok(true);
            }
            for message in messages {
                if !show(&self.socket, "message", &message).await {
                    return Ok(false);
                }
                counter!(DELIVERED).increment(1);
                self.seen.insert(message.conversation, message.number);
            }
        }
    }
}
