//! Stores by their URLs, as the examples take them as options.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::error_chain;
use mmate_idempotency::audit::Audit;
use mmate_idempotency::protocol::Retention;
use mmate_idempotency::store::{Store, StoreErrorKind};
use mmate_idempotency::{
    MemoryStore, MySqlStore, PostgresStore, RedisStore, SqliteStore, StoreError,
};

use crate::program::Failure;

/// Opens the store that is named so: `memory`, `sqlite:FILE`, or the URL of a Redis, a PostgreSQL or a MariaDB. Waits for
/// one that is away.
///
/// # Errors
/// It is named otherwise, or can never be opened.
pub async fn open(name: &str) -> Result<Arc<dyn Store>, Failure> {
    open_for(name, Keep::default()).await
}

/// What a store keeps of what is done.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "two settings")]
pub struct Keep {
    /// For how long; then it is removed.
    pub retention: Retention,
    /// How many records there are at most in memory.
    pub most: usize,
}

impl Default for Keep {
    fn default() -> Self {
        Self { retention: Retention::default(), most: 1_000_000 }
    }
}

/// As [`open`], a store that keeps what is done for so long.
///
/// # Errors
/// As there.
pub async fn open_for(name: &str, keep: Keep) -> Result<Arc<dyn Store>, Failure> {
    let mut is_told = false;
    loop {
        match try_open(name, keep).await? {
            Ok(store) => return Ok(store),
            // A file that cannot be opened does not come back by itself.
            Err(error)
                if error.kind() == StoreErrorKind::Permanent || name.starts_with("sqlite:") =>
            {
                return Err(error.into());
            }
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(reason = error_chain(&error), "waiting for the store");
            }
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// The same store, to be asked what is in it. None for those that cannot be asked: memory and Redis.
///
/// # Errors
/// It cannot be opened.
pub async fn audit(name: &str) -> Result<Option<Arc<dyn Audit>>, Failure> {
    Ok(match name.split_once(':') {
        Some(("sqlite", file)) => Some(Arc::new(SqliteStore::open(file).await?) as _),
        Some(("postgres" | "postgresql", _)) => {
            Some(Arc::new(PostgresStore::connect(name).await?) as _)
        }
        Some(("mysql" | "mariadb", _)) => Some(Arc::new(MySqlStore::connect(name).await?) as _),
        _ => None,
    })
}

async fn try_open(name: &str, keep: Keep) -> Result<Result<Arc<dyn Store>, StoreError>, Failure> {
    fn shared<S: Store>(opened: Result<S, StoreError>) -> Result<Arc<dyn Store>, StoreError> {
        opened.map(|store| Arc::new(store) as _)
    }
    let kept = keep.retention;
    Ok(match name.split_once(':') {
        None if name == "memory" => {
            shared(Ok(MemoryStore::new().capacity(keep.most).retention(kept)))
        }
        Some(("sqlite", file)) if !file.is_empty() => {
            shared(SqliteStore::open(file).await.map(|store| store.retention(kept)))
        }
        Some(("redis", _)) => {
            shared(RedisStore::connect(name).await.map(|store| store.retention(kept)))
        }
        Some(("postgres" | "postgresql", _)) => {
            shared(PostgresStore::connect(name).await.map(|store| store.retention(kept)))
        }
        Some(("mysql" | "mariadb", _)) => {
            shared(MySqlStore::connect(name).await.map(|store| store.retention(kept)))
        }
        _ => {
            return Err(
                "a store is memory, sqlite:FILE, redis://…, postgres://… or mysql://…".into()
            );
        }
    })
}
