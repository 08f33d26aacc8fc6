//! The shop's tables, on SQLite, PostgreSQL or MariaDB.

use std::path::Path;
use std::time::Duration;

use mmate_examples::database::{Dialect, Statements};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{MySql, Pool, Postgres, Sqlite, Transaction};

use crate::options::Failure;
use crate::shop::{ShopEvent, Through};

/// `shop_effects` has no unique constraint on purpose: a second effect must show.
const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS shop_effects (
        message_id VARCHAR(255) NOT NULL, subscription VARCHAR(255) NOT NULL, instance VARCHAR(255) NOT NULL,
        at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
    )",
    "CREATE TABLE IF NOT EXISTS shop_orders (
        order_id VARCHAR(255) PRIMARY KEY, status VARCHAR(255) NOT NULL, version BIGINT NOT NULL, quantity BIGINT NOT NULL
    )",
    "CREATE TABLE IF NOT EXISTS shop_stock (sku VARCHAR(255) PRIMARY KEY, on_hand BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS shop_audit (
        message_id VARCHAR(255) NOT NULL, topic VARCHAR(255) NOT NULL, message_type VARCHAR(255) NOT NULL,
        at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
    )",
];

/// Where the records of handled messages are, in the database of the shop.
pub(crate) const RECORDS: &str = "shop_processed";

const EFFECT: &str =
    "INSERT INTO shop_effects (message_id, subscription, instance) VALUES ($1, $2, $3)";

const NOTE: &str = "INSERT INTO shop_audit (message_id, topic, message_type) VALUES ($1, $2, $3)";

const ORDER: &str = "
INSERT INTO shop_orders (order_id, status, version, quantity) VALUES ($1, $2, $3, $4)
ON CONFLICT (order_id) DO UPDATE SET
    status = CASE WHEN excluded.version > shop_orders.version THEN excluded.status ELSE shop_orders.status END,
    version = CASE WHEN excluded.version > shop_orders.version THEN excluded.version ELSE shop_orders.version END,
    quantity = shop_orders.quantity + excluded.quantity";

/// MariaDB sets one column after the other: the version last.
const ORDER_ON_MARIADB: &str = "
INSERT INTO shop_orders (order_id, status, version, quantity) VALUES ($1, $2, $3, $4)
ON DUPLICATE KEY UPDATE
    status = IF(VALUES(version) > version, VALUES(status), status),
    version = GREATEST(version, VALUES(version)),
    quantity = quantity + VALUES(quantity)";

const STOCK: &str = "
INSERT INTO shop_stock (sku, on_hand) VALUES ($1, $2)
ON CONFLICT (sku) DO UPDATE SET on_hand = shop_stock.on_hand + excluded.on_hand";

const STOCK_ON_MARIADB: &str = "
INSERT INTO shop_stock (sku, on_hand) VALUES ($1, $2)
ON DUPLICATE KEY UPDATE on_hand = on_hand + VALUES(on_hand)";

/// A transaction that is going to write.
pub(crate) async fn begin_writing<DB: Statements>(
    pool: &Pool<DB>,
) -> sqlx::Result<Transaction<'static, DB>> {
    match DB::DIALECT {
        Dialect::Sqlite => pool.begin_with("BEGIN IMMEDIATE").await,
        Dialect::Postgres | Dialect::MariaDb => pool.begin().await,
    }
}

pub(crate) async fn add_effect<DB: Statements>(
    connection: &mut DB::Connection,
    Through { message_id, subscription, instance, .. }: &Through,
) -> sqlx::Result<()> {
    let values = [message_id.into(), subscription.into(), instance.into()];
    DB::execute(connection, EFFECT, &values).await.map(drop)
}

pub(crate) async fn change_order<DB: Statements>(
    connection: &mut DB::Connection,
    order_id: &str,
    status: &str,
    event: &ShopEvent,
) -> sqlx::Result<()> {
    let change = match DB::DIALECT {
        Dialect::Sqlite | Dialect::Postgres => ORDER,
        Dialect::MariaDb => ORDER_ON_MARIADB,
    };
    let (version, quantity) = (event.version, event.quantity_change);
    let values = [order_id.into(), status.into(), version.into(), quantity.into()];
    DB::execute(connection, change, &values).await.map(drop)
}

pub(crate) async fn change_stock<DB: Statements>(
    connection: &mut DB::Connection,
    sku: &str,
    change: i64,
) -> sqlx::Result<()> {
    let statement = match DB::DIALECT {
        Dialect::Sqlite | Dialect::Postgres => STOCK,
        Dialect::MariaDb => STOCK_ON_MARIADB,
    };
    DB::execute(connection, statement, &[sku.into(), change.into()]).await.map(drop)
}

/// Writes into the audit log.
pub(crate) async fn note<DB: Statements>(
    connection: &mut DB::Connection,
    message_type: &str,
    Through { message_id, topic, .. }: &Through,
) -> sqlx::Result<()> {
    let values = [message_id.into(), topic.into(), message_type.into()];
    DB::execute(connection, NOTE, &values).await.map(drop)
}

/// The shop's database, whichever it is.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    Sqlite(Pool<Sqlite>),
    Postgres(Pool<Postgres>),
    MySql(Pool<MySql>),
}

/// What the tables have: each message, and how many rows it has.
pub(crate) struct Rows {
    pub(crate) effects: Vec<(String, i64)>,
    pub(crate) audited: Vec<(String, i64)>,
}

impl Database {
    /// Opens a file, and makes the tables in it. A fresh one has nothing in it.
    ///
    /// `writers` is how many connections there are. A handler that writes in a transaction of its own
    /// needs one: SQLite has one writer at a time, and waiting for a connection is fairer than
    /// waiting for a lock.
    pub(crate) async fn sqlite(path: &Path, writers: u32, fresh: bool) -> Result<Self, Failure> {
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
        let pool = PoolOptions::new()
            .max_connections(writers)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|error| format!("cannot open the database {}: {error}", path.display()))?;
        make(&pool, false).await?;
        Ok(Self::Sqlite(pool))
    }

    /// Connects to a server, and makes the tables there, under names that begin with `shop_`.
    pub(crate) async fn server(url: &str, fresh: bool) -> Result<Self, Failure> {
        Ok(match Dialect::of(url)? {
            Dialect::MariaDb => Self::MySql(connect(url, fresh).await?),
            Dialect::Sqlite | Dialect::Postgres => Self::Postgres(connect(url, fresh).await?),
        })
    }

    pub(crate) async fn rows(&self) -> sqlx::Result<Rows> {
        match self {
            Self::Sqlite(pool) => rows(pool).await,
            Self::Postgres(pool) => rows(pool).await,
            Self::MySql(pool) => rows(pool).await,
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
            Self::MySql(pool) => pool.close().await,
        }
    }
}

/// Some for handlers, and some for what goes on beside them.
const CONNECTIONS: u32 = 8;

async fn connect<DB: Statements>(url: &str, fresh: bool) -> Result<Pool<DB>, Failure> {
    let pool = DB::connect(url, CONNECTIONS).await?;
    make(&pool, fresh).await?;
    Ok(pool)
}

async fn make<DB: Statements>(pool: &Pool<DB>, fresh: bool) -> sqlx::Result<()> {
    let mut connection = pool.acquire().await?;
    if fresh {
        for table in ["shop_effects", "shop_orders", "shop_stock", "shop_audit", RECORDS] {
            DB::execute(&mut connection, &format!("DROP TABLE IF EXISTS {table}"), &[]).await?;
        }
    }
    for table in TABLES {
        // Of two that make a table at the same time, PostgreSQL refuses one: then it is there.
        if DB::execute(&mut connection, table, &[]).await.is_err() {
            DB::execute(&mut connection, table, &[]).await?;
        }
    }
    Ok(())
}

async fn rows<DB: Statements>(pool: &Pool<DB>) -> sqlx::Result<Rows> {
    let mut connection = pool.acquire().await?;
    let count = |table| format!("SELECT message_id, count(*) FROM {table} GROUP BY message_id");
    let effects = DB::counts(&mut connection, &count("shop_effects")).await?;
    let audited = DB::counts(&mut connection, &count("shop_audit")).await?;
    Ok(Rows { effects, audited })
}
