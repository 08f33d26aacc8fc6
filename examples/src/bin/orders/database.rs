//! The shop's tables.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqliteConnection, SqlitePool};

use crate::options::Failure;
use crate::shop::{ShopEvent, Through};

/// `effects` has no unique constraint on purpose: a second effect must show.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS effects (
    message_id TEXT NOT NULL, subscription TEXT NOT NULL, instance TEXT NOT NULL,
    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS orders (
    order_id TEXT PRIMARY KEY, status TEXT NOT NULL, version INTEGER NOT NULL,
    quantity INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, on_hand INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS audit_log (
    message_id TEXT NOT NULL, topic TEXT NOT NULL, message_type TEXT NOT NULL,
    at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
";

/// Opens the shop's database, and makes its tables. A fresh one has nothing in it.
///
/// `writers` is how many connections there are. A handler that writes in a transaction of its own
/// needs one: SQLite has one writer at a time, and waiting for a connection is fairer than
/// waiting for a lock.
pub(crate) async fn open(path: &Path, writers: u32, fresh: bool) -> Result<SqlitePool, Failure> {
    if fresh {
        for suffix in ["", "-wal", "-shm"] {
            let mut file = path.as_os_str().to_owned();
            file.push(suffix);
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("cannot remove {}: {error}", file.display()).into());
                }
                _ => {}
            }
        }
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(30));
    let pool = SqlitePoolOptions::new()
        .max_connections(writers)
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .map_err(|error| format!("cannot open the database {}: {error}", path.display()))?;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    Ok(pool)
}

pub(crate) async fn add_effect(
    connection: &mut SqliteConnection,
    through: &Through,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO effects (message_id, subscription, instance) VALUES (?, ?, ?)")
        .bind(&through.message_id)
        .bind(&through.subscription)
        .bind(&through.instance)
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn change_order(
    connection: &mut SqliteConnection,
    order_id: &str,
    status: &str,
    event: &ShopEvent,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO orders (order_id, status, version, quantity) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (order_id) DO UPDATE SET
            status = CASE WHEN ?3 > version THEN ?2 ELSE status END,
            version = max(version, ?3),
            quantity = quantity + ?4",
    )
    .bind(order_id)
    .bind(status)
    .bind(event.version)
    .bind(event.quantity_change)
    .execute(connection)
    .await?;
    Ok(())
}

pub(crate) async fn change_stock(
    connection: &mut SqliteConnection,
    sku: &str,
    change: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO stock (sku, on_hand) VALUES (?1, ?2)
         ON CONFLICT (sku) DO UPDATE SET on_hand = on_hand + ?2",
    )
    .bind(sku)
    .bind(change)
    .execute(connection)
    .await?;
    Ok(())
}

pub(crate) async fn note(
    connection: &mut SqliteConnection,
    message_type: &str,
    through: &Through,
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO audit_log (message_id, topic, message_type) VALUES (?, ?, ?)")
        .bind(&through.message_id)
        .bind(&through.topic)
        .bind(message_type)
        .execute(connection)
        .await?;
    Ok(())
}

/// Each message with an effect, and how many it has.
pub(crate) async fn effects(pool: &SqlitePool) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as("SELECT message_id, count(*) FROM effects GROUP BY message_id")
        .fetch_all(pool)
        .await
}

/// Each message in the audit log, and how often it is there.
pub(crate) async fn audited(pool: &SqlitePool) -> sqlx::Result<Vec<(String, i64)>> {
    sqlx::query_as("SELECT message_id, count(*) FROM audit_log GROUP BY message_id")
        .fetch_all(pool)
        .await
}
