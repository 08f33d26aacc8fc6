//! The server's side of Socket.IO: who is connected, and what is shown to whom.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use socketioxide::AckError;
use socketioxide::extract::SocketRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

mod door;
mod mailboxes;

pub use door::welcome;
pub use mailboxes::{Joined, Mailbox, Mailboxes};

/// How long a client may take to confirm what it is shown.
const CONFIRMING: Duration = Duration::from_secs(20);

/// Shows the client something, and waits until it says that it has it. One that does not is disconnected: it comes back, and
/// says where it was.
pub async fn show<T: Serialize>(socket: &SocketRef, event: &str, data: &T) -> bool {
    let emitted = socket.timeout(CONFIRMING).emit_with_ack::<_, Value>(event, data);
    let is_confirmed = match emitted {
        // What is said in the confirmation does not matter.
        Ok(confirmation) => matches!(confirmation.await, Ok(_) | Err(AckError::Decode(_))),
        Err(_) => false,
    };
    if !is_confirmed {
        let _ = socket.clone().disconnect();
    }
    is_confirmed
}

/// Does something until the client is gone.
pub async fn until_disconnected(socket: &SocketRef, what: impl Future<Output = ()>) {
    let gone = CancellationToken::new();
    let leaves = gone.clone();
    socket.on_disconnect(async move || leaves.cancel());
    gone.run_until_cancelled(what).await;
}

/// How much of what one client asks is done at the same time. More is refused, or a client that does not wait for its answers
/// would fill the memory.
#[derive(Debug, Clone)]
pub struct AtOnce(Arc<Semaphore>);

impl AtOnce {
    /// So many at most.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// For one more, as long as what is returned is kept.
    ///
    /// # Errors
    /// What to tell the client, when it is one too many.
    pub fn begin(&self) -> Result<OwnedSemaphorePermit, &'static str> {
        let permit = Arc::clone(&self.0).try_acquire_owned();
        permit.map_err(|_| "try again: this client asks for too much at once")
    }
}

#[cfg(test)]
mod tests {
    use super::AtOnce;

    #[test]
    fn what_is_too_much_at_once_is_refused_until_something_has_ended() {
        let at_once = AtOnce::new(2);
        let first = at_once.begin().unwrap();
        let _second = at_once.begin().unwrap();
        assert!(at_once.begin().is_err());
        drop(first);
        assert!(at_once.begin().is_ok());
    }
}
