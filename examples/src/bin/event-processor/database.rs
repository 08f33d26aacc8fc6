//! The table of the events that were processed, on SQLite or PostgreSQL.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mmate_core::health::{Status, StatusCell};
use mmate_core::{RetryPolicy, error_chain};
use mmate_examples::program::Failure;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::{AnyPool, Row};
use tokio::time::sleep;

use crate::event::Event;

/// The primary key is the safety net: whatever happens, an event is stored once.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS events (
    event_id TEXT PRIMARY KEY, payload TEXT NOT NULL, processed_by TEXT NOT NULL,
    processed_at_ms BIGINT NOT NULL
)";

const INSERT: &str = "
INSERT INTO events (event_id, payload, processed_by, processed_at_ms) VALUES ($1, $2, $3, $4)
ON CONFLICT (event_id) DO NOTHING";

const SELECT: &str = "
SELECT event_id, payload, processed_by, processed_at_ms FROM events
WHERE event_id > $1 ORDER BY event_id LIMIT $2";

/// For how long a database that does not answer is tried again under one claim: about a quarter of
/// a minute. Then the claim is given back, and any listener may have the event.
fn patience() -> RetryPolicy {
    RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(2)).max_attempts(12)
}

#[derive(Debug, Clone)]
pub(crate) struct Database {
    pool: AnyPool,
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
        sqlx::any::install_default_drivers();
        let (url, is_sqlite) = match url.split_once(':') {
            Some(("sqlite", file)) if !file.is_empty() => (format!("sqlite:{file}?mode=rwc"), true),
            Some(("postgres" | "postgresql", _)) => (url.to_owned(), false),
            _ => return Err("a database is sqlite:FILE or postgres://…".into()),
        };
        let pool = AnyPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(3))
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if is_sqlite {
                        // Readers and the writer do not wait for each other.
                        sqlx::raw_sql("PRAGMA journal_mode = WAL")
                            .execute(&mut *connection)
                            .await?;
                    }
                    sqlx::raw_sql(TABLE).execute(connection).await?;
                    Ok(())
                })
            })
            .connect_lazy(&url)
            .map_err(|error| format!("cannot use the database: {error}"))?;
        Ok(Self { pool, status: StatusCell::new(Status::Up) })
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
        let inserted = sqlx::query(INSERT)
            .bind(event.event_id.as_str())
            .bind(event.payload.get())
            .bind(by)
            .bind(i64::try_from(now).unwrap_or(i64::MAX))
            .execute(&self.pool)
            .await?;
        Ok(inserted.rows_affected() == 1)
    }

    /// The events after that id in the order of their ids, up to a number of them.
    pub(crate) async fn page(&self, after: &str, limit: u16) -> Result<Vec<Stored>, Failure> {
        let rows = sqlx::query(SELECT).bind(after).bind(i64::from(limit)).fetch_all(&self.pool);
        rows.await?.iter().map(stored).collect()
    }

    pub(crate) async fn count(&self) -> sqlx::Result<i64> {
        sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&self.pool).await
    }

    pub(crate) fn status(&self) -> Status {
        self.status.status()
    }

    /// Logs only what is new.
    fn says(&self, status: Status) {
        if self.status.status().is_down() != status.is_down() {
            tracing::warn!("the database is {status}");
        }
        self.status.set(status);
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
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
