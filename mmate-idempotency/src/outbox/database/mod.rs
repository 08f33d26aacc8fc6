//! What a database must offer to the outbox.

mod statements;

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use async_trait::async_trait;
use sqlx::{Database, Pool};

pub(super) use self::statements::Statements;

/// A database that the outbox works with: `sqlx::Sqlite`, `sqlx::Postgres` and `sqlx::MySql`, each
/// with the feature of its name.
///
/// It cannot be implemented elsewhere. It has no methods, so that a trait of yours can have it as a
/// supertrait and methods of any names.
pub trait OutboxDatabase: Database + sealed::Sealed {
    /// What the outbox does with it; may change.
    #[doc(hidden)]
    type Rows: Rows<Self>;
}

/// What the outbox does with a database.
#[doc(hidden)]
#[async_trait]
#[expect(unnameable_types, reason = "for the outbox only")]
pub trait Rows<DB: OutboxDatabase>: Sized + Send + Sync + 'static {
    /// One word for metrics.
    const WORD: &'static str;

    /// Lets the writers of this process in one by one, where only one can write.
    type Gate: Clone + Send + Sync;

    type Turn: Send;

    fn gate(pool: &Pool<DB>) -> Self::Gate;

    /// Waits until this process may write.
    async fn enter(gate: &Self::Gate) -> Self::Turn;

    fn statements(table: &str) -> Statements;

    /// Fails if the table is missing or has another shape.
    async fn check(table: &Table<DB>) -> sqlx::Result<()>;

    /// Makes the table if it is missing.
    async fn create(table: &Table<DB>) -> sqlx::Result<()>;

    /// Writes a row in a transaction of somebody else's.
    async fn insert(
        statements: &Statements,
        connection: &mut DB::Connection,
        row: &NewRow,
    ) -> sqlx::Result<()>;

    /// Claims rows under a lease, sorted by their place.
    async fn claim(table: &Table<DB>, ask: &Ask) -> sqlx::Result<Vec<Claimed>>;

    /// Notes what became of claimed rows. Half of it noted does no harm: the claim lasts for the
    /// rest.
    async fn settle(table: &Table<DB>, claim: &[u8; 16], fates: &Fates) -> sqlx::Result<()>;

    /// The rows given up, oldest first.
    async fn dead(table: &Table<DB>, at_most: i64) -> sqlx::Result<Vec<DeadRow>>;

    /// Makes a row that was given up one to be sent. False if it is not there.
    async fn retry(table: &Table<DB>, seq: i64) -> sqlx::Result<bool>;

    /// Removes a row that was given up. False if it is not there.
    async fn discard(table: &Table<DB>, seq: i64) -> sqlx::Result<bool>;

    /// How many rows are to be sent, and how many are given up.
    async fn count(table: &Table<DB>) -> sqlx::Result<(i64, i64)>;
}

mod sealed {
    #[expect(unnameable_types, reason = "that is its purpose")]
    pub trait Sealed {}

    #[cfg(feature = "sqlite")]
    impl Sealed for sqlx::Sqlite {}
    #[cfg(feature = "postgres")]
    impl Sealed for sqlx::Postgres {}
    #[cfg(feature = "mysql")]
    impl Sealed for sqlx::MySql {}
}

/// Lets the writers of this process in one by one, where only one can write.
type Gate<DB> = <<DB as OutboxDatabase>::Rows as Rows<DB>>::Gate;

/// The table, and how it is reached.
#[doc(hidden)]
#[expect(unnameable_types, reason = "for the outbox only")]
pub struct Table<DB: OutboxDatabase> {
    pub(super) pool: Pool<DB>,
    pub(super) gate: Gate<DB>,
    pub(super) statements: Statements,
}

impl<DB: OutboxDatabase> Table<DB> {
    pub(super) fn new(pool: Pool<DB>, name: &str) -> Self {
        Self { gate: DB::Rows::gate(&pool), pool, statements: DB::Rows::statements(name) }
    }
}

impl<DB: OutboxDatabase> std::fmt::Debug for Table<DB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({:?})", self.statements.table)
    }
}

/// The gate of a database with many writers.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
#[expect(unnameable_types, reason = "for the outbox only")]
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub struct Open;

/// A message to be written.
#[doc(hidden)]
#[derive(Debug)]
#[expect(unnameable_types, reason = "for the outbox only")]
pub struct NewRow {
    pub(super) message_id: String,
    pub(super) message_type: String,
    pub(super) destination: String,
    pub(super) key: Option<String>,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// A question for rows to send.
#[doc(hidden)]
#[derive(Debug)]
#[expect(unnameable_types, reason = "for the outbox only")]
pub struct Ask {
    /// Names this claim.
    pub(super) claim: [u8; 16],
    /// In milliseconds.
    pub(super) lease: i64,
    pub(super) at_most: i64,
}

/// A row to send.
#[doc(hidden)]
#[derive(Debug)]
#[expect(unnameable_types, reason = "for the outbox only")]
pub struct Claimed {
    pub(super) seq: i64,
    pub(super) key: Option<String>,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// How many attempts failed.
    pub(super) attempts: i64,
    /// How long it had been there when it was claimed, in milliseconds.
    pub(super) age: i64,
}

/// As the statements that claim give them, with the time of the claim at the end.
type ClaimedRow = (i64, Option<String>, String, Vec<u8>, i64, i64, i64);

impl From<ClaimedRow> for Claimed {
    fn from((seq, key, head, body, attempts, created_at, now): ClaimedRow) -> Self {
        Self { seq, key, head, body, attempts, age: now.saturating_sub(created_at) }
    }
}

/// What became of claimed rows.
#[doc(hidden)]
#[derive(Debug, Default)]
#[expect(unnameable_types, reason = "for the outbox only")]
pub struct Fates {
    /// Ranges in which all rows of the claim were confirmed, their ends included.
    pub(super) sent: Vec<(i64, i64)>,
    /// Ranges in which no row of the claim was sent.
    pub(super) released: Vec<(i64, i64)>,
    pub(super) failed: Vec<Failed>,
}

/// A row that the broker did not take.
#[derive(Debug)]
pub(in crate::outbox) struct Failed {
    pub(super) seq: i64,
    pub(super) error: String,
    /// Until the next attempt, in milliseconds; none if it is given up.
    pub(super) pause: Option<i64>,
}

/// Place, id, type, destination, key, attempts, error, made at, given up at.
pub(in crate::outbox) type DeadRow =
    (i64, String, String, String, Option<String>, i64, Option<String>, i64, Option<i64>);

/// Implements [`OutboxDatabase`]: beside what is given, the operations that are the same on every
/// database.
macro_rules! outbox_database {
    ($Database:ty, $templates:expr, { $($own:tt)* }) => {
        impl OutboxDatabase for $Database {
            type Rows = Self;
        }

        #[async_trait]
        impl Rows<Self> for $Database {
            $($own)*

            async fn insert(
                statements: &Statements,
                connection: &mut <Self as Database>::Connection,
                row: &NewRow,
            ) -> sqlx::Result<()> {
                sqlx::query::<Self>(AssertSqlSafe(Arc::clone(&statements.insert)))
                    .bind(&row.message_id)
                    .bind(&row.message_type)
                    .bind(&row.destination)
                    .bind(row.key.as_deref())
                    .bind(&row.head)
                    .bind(&row.body)
                    .execute(connection)
                    .await
                    .map(drop)
            }

            async fn check(table: &Table<Self>) -> sqlx::Result<()> {
                let sql = AssertSqlSafe(Arc::clone(&table.statements.check));
                sqlx::query::<Self>(sql).fetch_all(&table.pool).await.map(drop)
            }

            async fn settle(table: &Table<Self>, claim: &[u8; 16], fates: &Fates) -> sqlx::Result<()> {
                let _turn = Self::enter(&table.gate).await;
                let statements = &table.statements;
                let mut connection = table.pool.acquire().await?;
                for failed in &fates.failed {
                    sqlx::query::<Self>(AssertSqlSafe(Arc::clone(&statements.failed)))
                        .bind(&failed.error)
                        .bind(failed.pause.unwrap_or(0))
                        .bind(i64::from(failed.pause.is_none()))
                        .bind(failed.seq)
                        .bind(&claim[..])
                        .execute(&mut *connection)
                        .await?;
                }
                for (ranges, sql) in
                    [(&fates.sent, &statements.sent), (&fates.released, &statements.release)]
                {
                    for (first, last) in ranges {
                        sqlx::query::<Self>(AssertSqlSafe(Arc::clone(sql)))
                            .bind(first)
                            .bind(last)
                            .bind(&claim[..])
                            .execute(&mut *connection)
                            .await?;
                    }
                }
                Ok(())
            }

            async fn dead(table: &Table<Self>, at_most: i64) -> sqlx::Result<Vec<DeadRow>> {
                let sql = AssertSqlSafe(Arc::clone(&table.statements.dead));
                sqlx::query_as::<Self, DeadRow>(sql).bind(at_most).fetch_all(&table.pool).await
            }

            async fn retry(table: &Table<Self>, seq: i64) -> sqlx::Result<bool> {
                let _turn = Self::enter(&table.gate).await;
                let sql = AssertSqlSafe(Arc::clone(&table.statements.retry));
                let done = sqlx::query::<Self>(sql).bind(seq).execute(&table.pool).await?;
                Ok(done.rows_affected() > 0)
            }

            async fn discard(table: &Table<Self>, seq: i64) -> sqlx::Result<bool> {
                let _turn = Self::enter(&table.gate).await;
                let sql = AssertSqlSafe(Arc::clone(&table.statements.discard));
                let done = sqlx::query::<Self>(sql).bind(seq).execute(&table.pool).await?;
                Ok(done.rows_affected() > 0)
            }

            async fn count(table: &Table<Self>) -> sqlx::Result<(i64, i64)> {
                let sql = AssertSqlSafe(Arc::clone(&table.statements.count));
                sqlx::query_as::<Self, (i64, i64)>(sql).fetch_one(&table.pool).await
            }

            fn statements(table: &str) -> Statements {
                Statements::new(table, &$templates)
            }

            async fn create(table: &Table<Self>) -> sqlx::Result<()> {
                let _turn = Self::enter(&table.gate).await;
                let sql = AssertSqlSafe(Arc::clone(&table.statements.create));
                sqlx::raw_sql(sql).execute(&table.pool).await.map(drop)
            }
        }
    };
}
use outbox_database;
