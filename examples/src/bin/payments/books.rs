//! Payments and receipts, on SQLite or PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use mmate_examples::program::Failure;
use mmate_idempotency::{OutboxDatabase, TransactionalDatabase};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{Pool, Postgres, Sqlite};

use crate::check::Count;
use crate::order::Charge;

/// `receipts` has no unique constraint on purpose: a second one must show.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS payments (
    order_id TEXT PRIMARY KEY, charge_id TEXT NOT NULL, cents BIGINT NOT NULL, last_fence BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS receipts (order_id TEXT NOT NULL, charge_id TEXT NOT NULL, cents BIGINT NOT NULL);
";

const IS_PAID: &str = "SELECT count(*) FROM payments WHERE order_id = $1";

/// Whoever was paused past its lease has a lower fence than whoever took over, and writes nothing.
const PAY: &str = "
INSERT INTO payments (order_id, charge_id, cents, last_fence) VALUES ($1, $2, $3, $4)
ON CONFLICT (order_id) DO UPDATE SET charge_id = excluded.charge_id, last_fence = excluded.last_fence
WHERE payments.last_fence < excluded.last_fence";

const RECEIPT: &str = "INSERT INTO receipts (order_id, charge_id, cents) VALUES ($1, $2, $3)";

/// A database that the books can be in. What is asked of each is the same, in the same words; only sqlx's types differ.
#[async_trait]
pub(crate) trait Tables: TransactionalDatabase + OutboxDatabase {
    async fn make(pool: &Pool<Self>) -> sqlx::Result<()>;
    async fn is_paid(connection: &mut Self::Connection, order_id: &str) -> sqlx::Result<bool>;
    /// `false` if a higher fence was there.
    async fn pay(
        connection: &mut Self::Connection,
        charge: &Charge,
        fence: i64,
    ) -> sqlx::Result<bool>;
    async fn write_receipt(connection: &mut Self::Connection, charge: &Charge) -> sqlx::Result<()>;
    async fn tally(pool: &Pool<Self>, table: &'static str) -> sqlx::Result<Count>;
}

macro_rules! tables {
    ($database:ty) => {
        #[async_trait]
        impl Tables for $database {
            async fn make(pool: &Pool<Self>) -> sqlx::Result<()> {
                sqlx::raw_sql(TABLES).execute(pool).await.map(drop)
            }

            async fn is_paid(
                connection: &mut Self::Connection,
                order_id: &str,
            ) -> sqlx::Result<bool> {
                let paid = sqlx::query_scalar::<_, i64>(IS_PAID).bind(order_id);
                Ok(paid.fetch_one(connection).await? > 0)
            }

            async fn pay(
                connection: &mut Self::Connection,
                Charge { charge_id, order_id, cents }: &Charge,
                fence: i64,
            ) -> sqlx::Result<bool> {
                let pay = sqlx::query(PAY).bind(order_id).bind(charge_id).bind(cents).bind(fence);
                Ok(pay.execute(connection).await?.rows_affected() == 1)
            }

            async fn write_receipt(
                connection: &mut Self::Connection,
                Charge { charge_id, order_id, cents }: &Charge,
            ) -> sqlx::Result<()> {
                let write = sqlx::query(RECEIPT).bind(order_id).bind(charge_id).bind(cents);
                write.execute(connection).await.map(drop)
            }

            async fn tally(pool: &Pool<Self>, table: &'static str) -> sqlx::Result<Count> {
                let count = format!("SELECT count(*), count(DISTINCT order_id) FROM {table}");
                let count = sqlx::query_as::<_, (i64, i64)>(sqlx::AssertSqlSafe(count));
                let (all, orders) = count.fetch_one(pool).await?;
                Ok(Count { all: all.unsigned_abs(), orders: orders.unsigned_abs() })
            }
        }
    };
}

tables!(Sqlite);
tables!(Postgres);

/// How many payments and receipts there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) payments: Count,
    pub(crate) receipts: Count,
}

#[derive(Debug)]
pub(crate) struct Books<DB: Tables>(Pool<DB>);

impl<DB: Tables> Books<DB> {
    async fn open(connect: impl Future<Output = sqlx::Result<Pool<DB>>>) -> Result<Self, Failure> {
        let pool = connect.await.map_err(|error| format!("cannot use the database: {error}"))?;
        // Of two that make them at the same time, PostgreSQL refuses one: then they are there.
        if DB::make(&pool).await.is_err() {
            DB::make(&pool).await?;
        }
        Ok(Self(pool))
    }

    pub(crate) fn pool(&self) -> &Pool<DB> {
        &self.0
    }

    pub(crate) async fn summary(&self) -> Result<Summary, Failure> {
        let (payments, receipts) = (DB::tally(&self.0, "payments"), DB::tally(&self.0, "receipts"));
        Ok(Summary { payments: payments.await?, receipts: receipts.await? })
    }
}

/// The books, in whichever database.
#[derive(Debug)]
pub(crate) enum Database {
    Sqlite(Books<Sqlite>),
    Postgres(Books<Postgres>),
}

/// Each handler has a connection for as long as the provider takes.
const CONNECTIONS: u32 = 16;

impl Database {
    pub(crate) async fn open(url: &str) -> Result<Self, Failure> {
        match url.split_once(':') {
            Some(("sqlite", file)) if !file.is_empty() => {
                let options = SqliteConnectOptions::new()
                    .filename(file)
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .busy_timeout(Duration::from_secs(30));
                let pool = PoolOptions::new().max_connections(CONNECTIONS).connect_with(options);
                Ok(Self::Sqlite(Books::open(pool).await?))
            }
            Some(("postgres" | "postgresql", _)) => {
                let pool = PoolOptions::new().max_connections(CONNECTIONS).connect(url);
                Ok(Self::Postgres(Books::open(pool).await?))
            }
            _ => Err("a database is sqlite:FILE or postgres://…".into()),
        }
    }

    pub(crate) async fn summary(&self) -> Result<Summary, Failure> {
        match self {
            Self::Sqlite(books) => books.summary().await,
            Self::Postgres(books) => books.summary().await,
        }
    }
}
