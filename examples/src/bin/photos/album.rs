//! The photos: their files in a folder, and rows of who got which.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mmate_core::RetryPolicy;
use mmate_core::health::Status;
use mmate_examples::database::Connections;
use mmate_examples::program::Failure;
use mmate_examples::sign_in::{Name, Signer};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tokio::sync::OnceCell;
use tokio::time::sleep;

use crate::upload::{Format, Upload};

/// `number` counts the photos of a recipient from 1, without a gap: whoever has seen 7 asks for what comes after 7.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS photos (
    recipient VARCHAR(32) NOT NULL, number BIGINT NOT NULL,
    sender VARCHAR(32) NOT NULL, message_id VARCHAR(255) NOT NULL,
    kind VARCHAR(8) NOT NULL, url VARCHAR(255) NOT NULL, sent_at_ms BIGINT NOT NULL,
    PRIMARY KEY (recipient, number), UNIQUE (sender, message_id)
)";

/// Does nothing if this photo is there, or if another one has just taken the number.
const INSERT: &str = "
INSERT INTO photos (recipient, number, sender, message_id, kind, url, sent_at_ms)
SELECT $1, coalesce(max(number), 0) + 1, $2, $3, $4, $5, $6 FROM photos WHERE recipient = $7";

const FIND: &str = "SELECT url FROM photos WHERE sender = $1 AND message_id = $2";

const AFTER: &str = "
SELECT number, sender, message_id, kind, url, sent_at_ms FROM photos
WHERE recipient = $1 AND number > $2 ORDER BY number LIMIT 50";

/// Why a photo is not stored whose id another one has.
pub(crate) const ANOTHER: &str = "this messageId was used for another photo";

/// For how long a number that others take is tried again.
fn patience() -> RetryPolicy {
    let (first, longest) = (Duration::from_millis(1), Duration::from_millis(50));
    RetryPolicy::exponential(first, longest).max_attempts(100)
}

#[derive(Debug)]
pub(crate) struct Album {
    folder: PathBuf,
    connections: Connections,
    has_table: OnceCell<()>,
    signer: Signer,
}

/// A photo that is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) url: String,
    pub(crate) is_new: bool,
}

/// A photo, as its recipient is shown it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    pub(crate) number: i64,
    pub(crate) sender: String,
    message_id: String,
    kind: String,
    url: String,
    sent_at_ms: i64,
}

impl Album {
    pub(crate) fn open(folder: &Path, database: &str, signer: Signer) -> Result<Self, Failure> {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
        let connections = Connections::open(database, 8)?;
        Ok(Self { folder: folder.to_owned(), connections, has_table: OnceCell::new(), signer })
    }

    async fn connections(&self) -> sqlx::Result<&Connections> {
        let create = || self.connections.create(&[TABLE]);
        self.has_table.get_or_try_init(create).await?;
        Ok(&self.connections)
    }

    /// Writes the file and the row. Whoever does it again, since the first died in the middle or is forgotten, finds or
    /// overwrites what is there. Another photo under the same id has another name, and is refused.
    pub(crate) async fn store(&self, sender: &Name, upload: &Upload) -> Result<Stored, Failure> {
        // Nobody can guess it, and it is the same in every attempt.
        let content = u128::from_be_bytes(*upload.fingerprint().as_bytes());
        let name = format!("photo {sender} {} {content:032x}", upload.message_id);
        let file = format!("{}.{}", self.signer.sign(&name), upload.format.extension());
        let url = format!("/photos/{file}");
        let there = match self.find(sender, upload).await? {
            Some(there) => Some(there),
            None => {
                self.write(&file, &upload.content).await?;
                self.insert(sender, upload, &url).await?
            }
        };
        match there {
            None => Ok(Stored { url, is_new: true }),
            Some(there) if there == url => Ok(Stored { url, is_new: false }),
            Some(_) => Err(ANOTHER.into()),
        }
    }

    /// Under its name there is a whole file or none.
    async fn write(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let unfinished = self.folder.join(format!("{name}.{:016x}.part", fastrand::u64(..)));
        let written = async {
            let mut file = File::create(&unfinished).await?;
            file.write_all(content).await?;
            file.sync_all().await?;
            fs::rename(&unfinished, self.folder.join(name)).await?;
            // Its name is to last as well: the row that comes next says that it is there.
            File::open(&self.folder).await?.sync_all().await
        };
        if let Err(error) = written.await {
            let _ = fs::remove_file(&unfinished).await;
            return Err(format!("the photo could not be written: {error}").into());
        }
        Ok(())
    }

    /// The URL of the photo that has this id.
    async fn find(&self, sender: &Name, upload: &Upload) -> sqlx::Result<Option<String>> {
        let connections = self.connections().await?;
        let find =
            connections.query(FIND).bind(sender.to_string()).bind(upload.message_id.to_string());
        let row = find.fetch_optional(connections.pool()).await?;
        row.map(|row| row.try_get("url")).transpose()
    }

    /// Adds the row, or gives the URL of the one that is there.
    async fn insert(
        &self,
        sender: &Name,
        upload: &Upload,
        url: &str,
    ) -> sqlx::Result<Option<String>> {
        let connections = self.connections().await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        for attempt in 1.. {
            let insert = connections
                .insert_new(INSERT)
                .bind(upload.recipient.to_string())
                .bind(sender.to_string())
                .bind(upload.message_id.to_string())
                .bind(upload.kind.word())
                .bind(url.to_owned())
                .bind(i64::try_from(now).unwrap_or(i64::MAX))
                .bind(upload.recipient.to_string());
            let failure = match insert.execute(connections.pool()).await {
                Ok(inserted) if inserted.rows_affected() > 0 => return Ok(None),
                Ok(_) => None,
                // On MariaDB two that want the same number may have to wait for each other.
                Err(error) => Some(error),
            };
            if let Some(there) = self.find(sender, upload).await? {
                return Ok(Some(there));
            }
            match (patience().after(attempt), failure) {
                (Some(pause), None | Some(sqlx::Error::Database(_))) => sleep(pause).await,
                (_, failure) => return Err(failure.unwrap_or(sqlx::Error::RowNotFound)),
            }
        }
        unreachable!("the attempts end")
    }

    /// The next photos of a recipient who has seen those up to a number.
    pub(crate) async fn after(&self, recipient: &Name, number: i64) -> sqlx::Result<Vec<Shown>> {
        let connections = self.connections().await?;
        let select = connections.query(AFTER).bind(recipient.to_string()).bind(number);
        select.fetch_all(connections.pool()).await?.iter().map(shown).collect()
    }

    /// The content of a file, and what it is.
    pub(crate) async fn read(&self, name: &str) -> std::io::Result<Option<(Format, Vec<u8>)>> {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let Some((stem, extension)) = name.split_once('.') else { return Ok(None) };
        let Some(format) = Format::with_extension(extension) else { return Ok(None) };
        if !stem.chars().all(is_fit) {
            return Ok(None);
        }
        match fs::read(self.folder.join(name)).await {
            Ok(content) => Ok(Some((format, content))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn status(&self) -> Status {
        self.connections.status().await
    }

    pub(crate) async fn close(&self) {
        self.connections.close().await;
    }
}

fn shown(row: &AnyRow) -> sqlx::Result<Shown> {
    Ok(Shown {
        number: row.try_get("number")?,
        sender: row.try_get("sender")?,
        message_id: row.try_get("message_id")?,
        kind: row.try_get("kind")?,
        url: row.try_get("url")?,
        sent_at_ms: row.try_get("sent_at_ms")?,
    })
}
