//! Stores by their URLs, as the examples take them as options.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::error_chain;
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
    let mut is_told = false;
    loop {
        match try_open(name).await? {
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

async fn try_open(name: &str) -> Result<Result<Arc<dyn Store>, StoreError>, Failure> {
    fn shared<S: Store>(opened: Result<S, StoreError>) -> Result<Arc<dyn Store>, StoreError> {
        opened.map(|store| Arc::new(store) as _)
    }
    Ok(match name.split_once(':') {
        None if name == "memory" => shared(Ok(MemoryStore::new())),
        Some(("sqlite", file)) if !file.is_empty() => shared(SqliteStore::open(file).await),
        Some(("redis", _)) => shared(RedisStore::connect(name).await),
        Some(("postgres" | "postgresql", _)) => shared(PostgresStore::connect(name).await),
        Some(("mysql" | "mariadb", _)) => shared(MySqlStore::connect(name).await),
        _ => {
            return Err(
                "a store is memory, sqlite:FILE, redis://…, postgres://… or mysql://…".into()
            );
        }
    })
}
