//! Photos on their way to their recipients.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mmate_core::{HandlerError, Json, Service, State, Subscription, error_chain};
use mmate_examples::sign_in::Name;
use mmate_examples::sockets;
use socketioxide::extract::SocketRef;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::album::Album;
use crate::desk::STORED;
use crate::tally;

/// How often it is looked for photos of which nobody told.
const LOOK: Duration = Duration::from_secs(2);

/// Who is connected to this server, to be woken.
#[derive(Debug, Default)]
pub(crate) struct Recipients(Mutex<HashMap<Name, Vec<Arc<Notify>>>>);

impl Recipients {
    fn join(&self, name: &Name) -> Arc<Notify> {
        let wake = Arc::<Notify>::default();
        self.lock().entry(name.clone()).or_default().push(Arc::clone(&wake));
        wake
    }

    fn leave(&self, name: &Name, wake: &Arc<Notify>) {
        let mut all = self.lock();
        let Some(connected) = all.get_mut(name) else { return };
        connected.retain(|other| !Arc::ptr_eq(other, wake));
        if connected.is_empty() {
            all.remove(name);
        }
    }

    fn wake(&self, name: &Name) {
        self.lock().get(name).into_iter().flatten().for_each(|wake| wake.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Vec<Arc<Notify>>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears from all servers for whom there is something; each server hears all of it.
pub(crate) fn service(recipients: Arc<Recipients>) -> Service {
    let hear = Subscription::per_instance("hear", [format!("{STORED}.*")]).handler(hear);
    Service::new("photos").state(recipients).subscribe(hear)
}

async fn hear(
    Json(recipient): Json<Name>,
    State(recipients): State<Arc<Recipients>>,
) -> Result<(), HandlerError> {
    recipients.wake(&recipient);
    Ok(())
}

/// Shows the recipient the photos after a number, one after the other, until the connection ends. What the client has
/// confirmed is not shown on this connection again; on the next one the client says where it was.
pub(crate) async fn deliver(
    socket: SocketRef,
    name: Name,
    after: i64,
    album: Arc<Album>,
    recipients: Arc<Recipients>,
) {
    let ended = CancellationToken::new();
    socket.on_disconnect({
        let ended = ended.clone();
        async move || ended.cancel()
    });
    let wake = recipients.join(&name);
    let showing = show(&socket, &name, after, &album, &wake);
    ended.run_until_cancelled(showing).await;
    recipients.leave(&name, &wake);
}

async fn show(socket: &SocketRef, name: &Name, mut after: i64, album: &Album, wake: &Notify) {
    while socket.connected() {
        let photos = match album.after(name, after).await {
            Ok(photos) => photos,
            Err(error) => {
                tracing::warn!(error = error_chain(&error), "photos are not delivered now");
                Vec::new()
            }
        };
        if photos.is_empty() {
            let _ = timeout(LOOK, wake.notified()).await;
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
