//! The server's side of Socket.IO.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use socketioxide::AckError;
use socketioxide::extract::SocketRef;

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
