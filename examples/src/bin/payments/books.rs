//! Payments and receipts, on SQLite, PostgreSQL or MariaDB.

use mmate_examples::database::{Connections, Dialect, Statements, Value};
use mmate_examples::program::Failure;
use sqlx::{MySql, Pool, Postgres, Sqlite};

use crate::check::Count;
use crate::order::Charge;

/// `receipts` has no unique constraint on purpose: a second one must show.
const TABLES: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS payments (
        order_id VARCHAR(255) PRIMARY KEY, charge_id VARCHAR(255) NOT NULL, cents BIGINT NOT NULL,
        last_fence BIGINT NOT NULL
    )",
    "CREATE TABLE IF NOT EXISTS receipts (
        order_id VARCHAR(255) NOT NULL, charge_id VARCHAR(255) NOT NULL, cents BIGINT NOT NULL
    )",
];

const FIND: &str = "SELECT cents FROM payments WHERE order_id = $1";

const PAY: &str =
    "INSERT INTO payments (order_id, charge_id, cents, last_fence) VALUES ($1, $2, $3, $4)";

/// Whoever was paused past its lease has a lower fence than whoever took over, and writes nothing.
const PAY_AGAIN: &str = "
UPDATE payments SET charge_id = $1, last_fence = $2 WHERE order_id = $3 AND last_fence < $4";

const RECEIPT: &str = "INSERT INTO receipts (order_id, charge_id, cents) VALUES ($1, $2, $3)";

pub(crate) async fn is_paid<DB: Statements>(
    connection: &mut DB::Connection,
    order_id: &str,
) -> sqlx::Result<bool> {
    Ok(DB::number(connection, FIND, &[order_id.into()]).await?.is_some())
}

/// `false` if a higher fence was there.
pub(crate) async fn pay<DB: Statements>(
    connection: &mut DB::Connection,
    Charge { charge_id, order_id, cents }: &Charge,
    fence: i64,
) -> sqlx::Result<bool> {
    let pay = DB::DIALECT.insert_new(PAY);
    let values: [Value<'_>; 4] = [order_id.into(), charge_id.into(), (*cents).into(), fence.into()];
    if DB::execute(connection, &pay, &values).await? == 1 {
        return Ok(true);
    }
    let values = [charge_id.into(), fence.into(), order_id.into(), fence.into()];
    Ok(DB::execute(connection, PAY_AGAIN, &values).await? == 1)
}

pub(crate) async fn write_receipt<DB: Statements>(
    connection: &mut DB::Connection,
    Charge { charge_id, order_id, cents }: &Charge,
) -> sqlx::Result<()> {
    let values = [order_id.into(), charge_id.into(), (*cents).into()];
    DB::execute(connection, RECEIPT, &values).await.map(drop)
}

/// How many payments and receipts there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) payments: Count,
    pub(crate) receipts: Count,
}

/// The books, in whichever database.
#[derive(Debug)]
pub(crate) enum Database {
    Sqlite(Pool<Sqlite>),
    Postgres(Pool<Postgres>),
    MariaDb(Pool<MySql>),
}

/// Each handler has a connection for as long as the provider takes.
const CONNECTIONS: u32 = 16;

impl Database {
    pub(crate) async fn open(url: &str) -> Result<Self, Failure> {
        let database = match Dialect::of(url)? {
            Dialect::Sqlite => Self::Sqlite(Sqlite::connect(url, CONNECTIONS).await?),
            Dialect::Postgres => Self::Postgres(Postgres::connect(url, CONNECTIONS).await?),
            Dialect::MariaDb => Self::MariaDb(MySql::connect(url, CONNECTIONS).await?),
        };
        let connections = Connections::open(url, 1)?;
        connections.create(&TABLES).await?;
        connections.close().await;
        Ok(database)
    }

    pub(crate) async fn summary(&self) -> Result<Summary, Failure> {
        match self {
            Self::Sqlite(pool) => summary(pool).await,
            Self::Postgres(pool) => summary(pool).await,
            Self::MariaDb(pool) => summary(pool).await,
        }
    }
}

async fn summary<DB: Statements>(pool: &Pool<DB>) -> Result<Summary, Failure> {
    let mut connection = pool.acquire().await?;
    let payments = count::<DB>(&mut connection, "payments").await?;
    let receipts = count::<DB>(&mut connection, "receipts").await?;
    Ok(Summary { payments, receipts })
}

async fn count<DB: Statements>(
    connection: &mut DB::Connection,
    table: &str,
) -> sqlx::Result<Count> {
    let mut counts = [0; 2];
    for (count, what) in counts.iter_mut().zip(["*", "DISTINCT order_id"]) {
        let select = format!("SELECT count({what}) FROM {table}");
        let number = DB::number(connection, &select, &[]).await?;
        *count = number.unwrap_or_default().unsigned_abs();
    }
    let [all, orders] = counts;
    Ok(Count { all, orders })
}
