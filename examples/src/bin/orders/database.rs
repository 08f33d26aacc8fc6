//! The shop's tables, on SQLite, PostgreSQL or MariaDB.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use mmate_idempotency::TransactionalDatabase;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, MySql, Pool, Postgres, Sqlite, Transaction};

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
const STOCK: &str = "
INSERT INTO shop_stock (sku, on_hand) VALUES ($1, $2)
ON CONFLICT (sku) DO UPDATE SET on_hand = shop_stock.on_hand + excluded.on_hand";

/// The same in the words of MySQL, which sets one column after the other.
mod mysql {
    pub(super) const EFFECT: &str =
        "INSERT INTO shop_effects (message_id, subscription, instance) VALUES (?, ?, ?)";
    pub(super) const NOTE: &str =
        "INSERT INTO shop_audit (message_id, topic, message_type) VALUES (?, ?, ?)";
    pub(super) const ORDER: &str = "
INSERT INTO shop_orders (order_id, status, version, quantity) VALUES (?, ?, ?, ?)
ON DUPLICATE KEY UPDATE
    status = IF(VALUES(version) > version, VALUES(status), status),
    version = GREATEST(version, VALUES(version)),
    quantity = quantity + VALUES(quantity)";
    pub(super) const STOCK: &str = "
INSERT INTO shop_stock (sku, on_hand) VALUES (?, ?)
ON DUPLICATE KEY UPDATE on_hand = on_hand + VALUES(on_hand)";
}

/// A database that the shop can be in.
#[async_trait]
pub(crate) trait Tables: TransactionalDatabase {
    async fn run(pool: &Pool<Self>, statement: String) -> sqlx::Result<()>;
    /// A transaction that is going to write.
    async fn begin_writing(pool: &Pool<Self>) -> sqlx::Result<Transaction<'static, Self>>;
    async fn add_effect(connection: &mut Self::Connection, through: &Through) -> sqlx::Result<()>;
    async fn change_order(
        connection: &mut Self::Connection,
        order_id: &str,
        status: &str,
        event: &ShopEvent,
    ) -> sqlx::Result<()>;
    async fn change_stock(
        connection: &mut Self::Connection,
        sku: &str,
        change: i64,
    ) -> sqlx::Result<()>;
    /// Writes into the audit log.
    async fn note(
        connection: &mut Self::Connection,
        message_type: &str,
        through: &Through,
    ) -> sqlx::Result<()>;
    /// Each message in a table, and how many rows it has there.
    async fn rows(pool: &Pool<Self>, table: &str) -> sqlx::Result<Vec<(String, i64)>>;
}

macro_rules! tables {
    ($database:ty, $begin:literal, $words:ident) => {
        #[async_trait]
        impl Tables for $database {
            async fn run(pool: &Pool<Self>, statement: String) -> sqlx::Result<()> {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await.map(drop)
            }

            async fn begin_writing(pool: &Pool<Self>) -> sqlx::Result<Transaction<'static, Self>> {
                pool.begin_with($begin).await
            }

            async fn add_effect(
                connection: &mut Self::Connection,
                through: &Through,
            ) -> sqlx::Result<()> {
                let Through { message_id, subscription, instance, .. } = through;
                let add = sqlx::query($words::EFFECT).bind(message_id).bind(subscription);
                add.bind(instance).execute(connection).await.map(drop)
            }

            async fn change_order(
                connection: &mut Self::Connection,
                order_id: &str,
                status: &str,
                event: &ShopEvent,
            ) -> sqlx::Result<()> {
                let change = sqlx::query($words::ORDER).bind(order_id).bind(status);
                let change = change.bind(event.version).bind(event.quantity_change);
                change.execute(connection).await.map(drop)
            }

            async fn change_stock(
                connection: &mut Self::Connection,
                sku: &str,
                change: i64,
            ) -> sqlx::Result<()> {
                let change = sqlx::query($words::STOCK).bind(sku).bind(change);
                change.execute(connection).await.map(drop)
            }

            async fn note(
                connection: &mut Self::Connection,
                message_type: &str,
                through: &Through,
            ) -> sqlx::Result<()> {
                let note = sqlx::query($words::NOTE).bind(&through.message_id);
                let note = note.bind(&through.topic).bind(message_type);
                note.execute(connection).await.map(drop)
            }

            async fn rows(pool: &Pool<Self>, table: &str) -> sqlx::Result<Vec<(String, i64)>> {
                let count = format!("SELECT message_id, count(*) FROM {table} GROUP BY message_id");
                sqlx::query_as(AssertSqlSafe(count)).fetch_all(pool).await
            }
        }
    };
}

use self as common;
tables!(Sqlite, "BEGIN IMMEDIATE", common);
tables!(Postgres, "BEGIN", common);
tables!(MySql, "BEGIN", mysql);

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
        match url.split_once(':') {
            Some(("mysql" | "mariadb", _)) => Ok(Self::MySql(connect(url, fresh).await?)),
            _ => Ok(Self::Postgres(connect(url, fresh).await?)),
        }
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

async fn connect<DB: Tables>(url: &str, fresh: bool) -> Result<Pool<DB>, Failure> {
    let options: <DB::Connection as Connection>::Options = url
        .parse()
        .map_err(|error: sqlx::Error| format!("cannot read the database's URL: {error}"))?;
    let pool = PoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await;
    let pool = pool.map_err(|error| format!("cannot use the database: {error}"))?;
    make(&pool, fresh).await?;
    Ok(pool)
}

async fn make<DB: Tables>(pool: &Pool<DB>, fresh: bool) -> sqlx::Result<()> {
    if fresh {
        for table in ["shop_effects", "shop_orders", "shop_stock", "shop_audit", RECORDS] {
            DB::run(pool, format!("DROP TABLE IF EXISTS {table}")).await?;
        }
    }
    for table in TABLES {
        // Of two that make a table at the same time, PostgreSQL refuses one: then it is there.
        if DB::run(pool, table.to_owned()).await.is_err() {
            DB::run(pool, table.to_owned()).await?;
        }
    }
    Ok(())
}

async fn rows<DB: Tables>(pool: &Pool<DB>) -> sqlx::Result<Rows> {
    let (effects, audited) = (DB::rows(pool, "shop_effects"), DB::rows(pool, "shop_audit"));
    Ok(Rows { effects: effects.await?, audited: audited.await? })
}
