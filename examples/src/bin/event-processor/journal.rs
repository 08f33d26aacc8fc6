//! The producer's journal: what was published, and how far each listener is.

use std::path::Path;
use std::time::Duration;

use mmate_core::MessageId;
use mmate_examples::program::Failure;
use serde_json::value::RawValue;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};
use tokio::sync::watch;

use crate::event::{Event, Numbered};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS journal (
    number INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, payload TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS positions (listener TEXT PRIMARY KEY, number INTEGER NOT NULL);
";

/// How many events are read at once.
const PAGE: i64 = 100;

/// After how many events it is looked which are too old.
const TRIM_EVERY: i64 = 100;

#[derive(Debug, Clone)]
pub(crate) struct Journal {
    pool: SqlitePool,
    keep: i64,
    latest: watch::Sender<i64>,
}

impl Journal {
    pub(crate) async fn open(file: &Path, keep: u32) -> Result<Self, Failure> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().connect_with(options).await;
        let pool =
            pool.map_err(|error| format!("cannot open the journal {}: {error}", file.display()))?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        let latest = sqlx::query_scalar("SELECT coalesce(max(number), 0) FROM journal");
        let latest = watch::Sender::new(latest.fetch_one(&pool).await?);
        Ok(Self { pool, keep: keep.into(), latest })
    }

    /// Keeps the event, and returns its number. From then on it survives a kill.
    pub(crate) async fn append(&self, event: &Event) -> sqlx::Result<i64> {
        let insert = "INSERT INTO journal (event_id, payload) VALUES (?, ?) RETURNING number";
        let number: i64 = sqlx::query_scalar(insert)
            .bind(event.event_id.as_str())
            .bind(event.payload.get())
            .fetch_one(&self.pool)
            .await?;
        self.latest.send_if_modified(|latest| {
            let is_later = number > *latest;
            *latest = number.max(*latest);
            is_later
        });
        if number % TRIM_EVERY == 0 {
            let trim = sqlx::query("DELETE FROM journal WHERE number <= ?");
            trim.bind(number - self.keep).execute(&self.pool).await?;
        }
        Ok(number)
    }

    /// The next events after that one; none if there are no later ones yet.
    pub(crate) async fn after(&self, number: i64) -> Result<Vec<Numbered>, Failure> {
        let select = "SELECT number, event_id, payload FROM journal WHERE number > ?
                      ORDER BY number LIMIT ?";
        let rows = sqlx::query(select).bind(number).bind(PAGE).fetch_all(&self.pool).await?;
        rows.iter().map(numbered).collect()
    }

    /// Tells of each new event.
    pub(crate) fn watch(&self) -> watch::Receiver<i64> {
        self.latest.subscribe()
    }

    /// Up to which number the listener is done with all events; 0 for one that is new.
    pub(crate) async fn position(&self, listener: &str) -> sqlx::Result<i64> {
        let select = sqlx::query_scalar("SELECT number FROM positions WHERE listener = ?");
        Ok(select.bind(listener).fetch_optional(&self.pool).await?.unwrap_or(0))
    }

    pub(crate) async fn set_position(&self, listener: &str, number: i64) -> sqlx::Result<()> {
        let upsert = "INSERT INTO positions (listener, number) VALUES (?1, ?2)
             ON CONFLICT (listener) DO UPDATE SET number = max(number, ?2)";
        sqlx::query(upsert).bind(listener).bind(number).execute(&self.pool).await?;
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

fn numbered(row: &SqliteRow) -> Result<Numbered, Failure> {
    let event = Event {
        event_id: MessageId::parse(row.try_get::<&str, _>("event_id")?)?,
        payload: RawValue::from_string(row.try_get("payload")?)?,
    };
    Ok(Numbered { number: row.try_get("number")?, event })
}
