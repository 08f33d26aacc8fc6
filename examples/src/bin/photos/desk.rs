//! Where photos are handed in: each is stored once, however often it is sent.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::health::Status;
use mmate_core::{Outgoing, Publisher, error_chain};
use mmate_examples::program::Failure;
use mmate_examples::sign_in::Name;
use mmate_idempotency::store::{RecordKey, Store};
use mmate_idempotency::{Idempotent, Ran, RunError};
use serde::Serialize;
use tokio::time::sleep;

use crate::album::{ANOTHER, Album, Stored};
use crate::options::WorkOptions;
use crate::tally::{Outcome, Tally};
use crate::upload::Upload;

/// What the servers tell each other under: `photo.stored.anna` when there is something for Anna.
pub(crate) const STORED: &str = "photo.stored";

/// The answer to `send_photo` and `send_moment`.
#[derive(Debug, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(crate) enum Answer {
    Stored { success: bool, cached: bool, message_id: String, url: String },
    Failed { success: bool, error: String },
}

impl Answer {
    pub(crate) fn failed(error: impl Into<String>) -> Self {
        Self::Failed { success: false, error: error.into() }
    }
}

pub(crate) struct Desk {
    pub(crate) album: Arc<Album>,
    records: Idempotent,
    publisher: Option<Publisher>,
    storing_takes: Duration,
    pub(crate) tally: Tally,
}

/// The records of a sender: ids are the senders' own, and nobody is answered with somebody else's photo.
pub(crate) fn scope(sender: &Name) -> String {
    format!("photos/{sender}")
}

impl Desk {
    pub(crate) fn new(
        album: Arc<Album>,
        store: Arc<dyn Store>,
        publisher: Option<Publisher>,
        options: &WorkOptions,
    ) -> Self {
        let records = Idempotent::new(store).named("photos", "").lease(options.lease());
        let records = records.purge_every(options.purge_every());
        let storing_takes = options.storing_takes();
        Self { album, records, publisher, storing_takes, tally: Tally::default() }
    }

    /// Stores the photo, or answers as the first one was answered that had this id: with the same URL. If that one is at
    /// work, here or at another server, this one waits. A failure is answered and not kept.
    pub(crate) async fn send(&self, sender: &Name, upload: Upload) -> Answer {
        let id = upload.message_id.to_string();
        let key = match RecordKey::new(scope(sender), &upload.message_id) {
            Ok(key) => key,
            Err(error) => return self.failed(error_chain(&error)),
        };
        let (fingerprint, recipient) = (upload.fingerprint(), upload.recipient.clone());
        let work = store(Arc::clone(&self.album), sender.clone(), upload, self.storing_takes);
        let ran = self.records.run(key, fingerprint, work).await;
        let (cached, url) = match ran {
            Ok(Ran::Fresh(Stored { url, is_new: true })) => {
                self.tally.add(Outcome::Stored);
                self.tell(&recipient);
                (false, url)
            }
            // Also what was stored so long ago that its record is gone.
            Ok(Ran::Replayed(Stored { url, .. }) | Ran::Fresh(Stored { url, is_new: false })) => {
                self.tally.add(Outcome::Cached);
                (true, url)
            }
            Err(RunError::Failed { error, .. }) => return self.failed(error_chain(&*error)),
            Err(RunError::Conflict { .. }) => return self.failed(ANOTHER),
            Err(RunError::Busy { .. }) => {
                return self.failed("it is still being stored; try again with the same messageId");
            }
            Err(RunError::Store { source, .. }) => {
                return self.failed(format!("try again: {}", error_chain(&source)));
            }
            Err(error) => {
                tracing::warn!(%error, id, "a photo is to be sent again");
                return self.failed("it did not come to an end; try again with the same messageId");
            }
        };
        Answer::Stored { success: true, cached, message_id: id, url }
    }

    pub(crate) fn failed(&self, error: impl Into<String>) -> Answer {
        self.tally.add(Outcome::Failed);
        Answer::failed(error)
    }

    /// Says that there is something for the recipient. If that is lost, the photo is there all the same, and found a little
    /// later.
    fn tell(&self, recipient: &Name) {
        let Some(publisher) = self.publisher.clone() else { return };
        let topic = format!("{STORED}.{recipient}");
        let message = Outgoing::event(topic, "PhotoStored", recipient).allow_unroutable();
        tokio::spawn(async move {
            if let Err(error) = publisher.publish(message).await {
                tracing::warn!(error = error_chain(&error), "the other servers were not told");
            }
        });
    }

    /// How the place is where the answers are kept.
    pub(crate) async fn store_status(&self) -> Status {
        // What is wrong with it shows in its status.
        let _ = self.records.ping().await;
        self.records.status()
    }

    /// Waits for what is being stored.
    pub(crate) async fn finish(&self, limit: Duration) {
        self.records.finish(limit).await;
    }
}

/// The work that is done once. Knows nothing of copies.
async fn store(
    album: Arc<Album>,
    sender: Name,
    upload: Upload,
    takes: Duration,
) -> Result<Stored, Failure> {
    sleep(takes).await;
    album.store(&sender, &upload).await
}
