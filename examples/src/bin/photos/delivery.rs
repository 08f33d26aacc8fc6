//! Photos on their way to their recipients.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::{HandlerError, Json, Service, State, Subscription, error_chain};
use mmate_examples::sign_in::Name;
use mmate_examples::sockets::{self, Joined, Mailboxes};
use socketioxide::extract::SocketRef;

use crate::album::Album;
use crate::desk::STORED;
use crate::tally;

/// How often it is looked for photos of which nobody told.
const LOOK: Duration = Duration::from_secs(2);

/// Hears from all servers for whom there is something; each server hears all of it.
pub(crate) fn service(mailboxes: Mailboxes) -> Service {
    let hear = Subscription::per_instance("hear", [format!("{STORED}.*")]).handler(hear);
    Service::new("photos").state(mailboxes).subscribe(hear)
}

async fn hear(
    Json(recipient): Json<Name>,
    State(mailboxes): State<Mailboxes>,
) -> Result<(), HandlerError> {
    mailboxes.tell(&recipient, "");
    Ok(())
}

/// Shows the recipient the photos after a number, one after the other, until the connection ends. What the client has
/// confirmed is not shown on this connection again; on the next one the client says where it was.
pub(crate) async fn deliver(
    socket: SocketRef,
    name: Name,
    after: i64,
    album: Arc<Album>,
    mailboxes: Mailboxes,
) {
    let mailbox = mailboxes.join(&name);
    let showing = show(&socket, &name, after, &album, &mailbox);
    sockets::until_disconnected(&socket, showing).await;
}

async fn show(socket: &SocketRef, name: &Name, mut after: i64, album: &Album, mailbox: &Joined) {
    while socket.connected() {
        let photos = match album.after(name, after).await {
            Ok(photos) => photos,
            Err(error) => {
                tracing::warn!(error = error_chain(&error), "photos are not delivered now");
                Vec::new()
            }
        };
        if photos.is_empty() {
            mailbox.take(LOOK).await;
        }
        for photo in photos {
            if !sockets::show(socket, "photo", &photo).await {
                return;
            }
            tally::delivered();
            after = photo.number;
        }
    }
}
