//! The table of the events that were processed, on SQLite, PostgreSQL or MariaDB.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mmate_core::health::{Status, StatusCell};
use mmate_core::{RetryPolicy, error_chain};
use mmate_examples::database::Connections;
use mmate_examples::program::Failure;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Row;
use sqlx::any::AnyRow;
use tokio::sync::OnceCell;
use tokio::time::sleep;

use crate::event::Event;

/// The primary key is the safety net: whatever happens, an event is stored once.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS events (
    event_id VARCHAR(255) PRIMARY KEY, payload TEXT NOT NULL, processed_by VARCHAR(64) NOT NULL,
    processed_at_ms BIGINT NOT NULL
)";

const INSERT: &str = "
INSERT INTO events (event_id, payload, processed_by, processed_at_ms) VALUES ($1, $2, $3, $4)";

const SELECT: &str = "
SELECT event_id, payload, processed_by, processed_at_ms FROM events
WHERE event_id > $1 ORDER BY event_id LIMIT $2";

/// For how long a database that does not answer is tried again under one claim: about ten seconds.
/// Then the claim is given back, and any listener may have the event.
fn patience() -> RetryPolicy {
    RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(2)).max_attempts(6)
}

#[derive(Debug, Clone)]
pub(crate) struct Database {
    connections: Connections,
    has_table: Arc<OnceCell<()>>,
    status: StatusCell,
}

/// An event in the table.
#[derive(Debug, Serialize)]
pub(crate) struct Stored {
    pub(crate) event_id: String,
    payload: Box<RawValue>,
    processed_by: String,
    /// Milliseconds since 1970.
    processed_at_ms: i64,
}

impl Database {
    /// Connects when it is first used, so a listener starts while its database is away.
    pub(crate) fn open(url: &str) -> Result<Self, Failure> {
        let connections = Connections::open(url, 4)?;
        let status = StatusCell::new(Status::Up);
        Ok(Self { connections, has_table: Arc::default(), status })
    }

    /// The connections, once the table is there.
    async fn connections(&self) -> sqlx::Result<&Connections> {
        let create = || self.connections.create(&[TABLE]);
        self.has_table.get_or_try_init(create).await?;
        Ok(&self.connections)
    }

    /// Stores the event; `false` if it was there already. A database that is away is tried again,
    /// less and less often.
    pub(crate) async fn insert(&self, event: &Event, by: &str) -> sqlx::Result<bool> {
        for attempt in 1.. {
            let error = match self.try_insert(event, by).await {
                Ok(is_new) => {
                    self.says(Status::Up);
                    return Ok(is_new);
                }
                Err(error) => error,
            };
            self.says(Status::down(error_chain(&error)));
            match patience().after(attempt) {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            }
        }
        unreachable!("the attempts end")
    }

    async fn try_insert(&self, event: &Event, by: &str) -> sqlx::Result<bool> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let connections = self.connections().await?;
        let insert = connections
            .insert_new(INSERT)
            .bind(event.event_id.to_string())
            .bind(event.payload.get().to_owned())
            .bind(by.to_owned())
            .bind(i64::try_from(now).unwrap_or(i64::MAX));
        let inserted = insert.execute(connections.pool()).await?;
        Ok(inserted.rows_affected() == 1)
    }

    /// The events after that id in the order of their ids, up to a number of them.
    pub(crate) async fn page(&self, after: &str, limit: u16) -> Result<Vec<Stored>, Failure> {
        let connections = self.connections().await?;
        let select = connections.query(SELECT).bind(after.to_owned()).bind(i64::from(limit));
        select.fetch_all(connections.pool()).await?.iter().map(stored).collect()
    }

    pub(crate) async fn count(&self) -> sqlx::Result<i64> {
        let connections = self.connections().await?;
        let count = sqlx::query_scalar("SELECT count(*) FROM events");
        count.fetch_one(connections.pool()).await
    }

    pub(crate) fn status(&self) -> Status {
        self.status.status()
    }

    /// Logs only what is new.
    fn says(&self, status: Status) {
        let was_down = self.status.status().is_down();
        if was_down != status.is_down() {
            tracing::warn!("the database is {status}");
        }
        let is_lost = status.is_down() && !was_down;
        self.status.set(status);
        if is_lost {
            tokio::spawn(self.clone().look_until_it_is_back());
        }
    }

    /// Another listener may have what this one could not store, and then there is nothing to insert
    /// by which this one would see that the database is back.
    async fn look_until_it_is_back(self) {
        while self.status().is_down() && !self.connections.pool().is_closed() {
            sleep(Duration::from_secs(1)).await;
            if sqlx::query("SELECT 1").execute(self.connections.pool()).await.is_ok() {
                self.says(Status::Up);
            }
        }
    }

    pub(crate) async fn close(&self) {
        self.connections.close().await;
    }
}

fn stored(row: &AnyRow) -> Result<Stored, Failure> {
    Ok(Stored {
        event_id: row.try_get("event_id")?,
        payload: RawValue::from_string(row.try_get("payload")?)?,
        processed_by: row.try_get("processed_by")?,
        processed_at_ms: row.try_get("processed_at_ms")?,
    })
}
