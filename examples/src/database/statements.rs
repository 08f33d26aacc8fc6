//! Statements in a transaction of a handler, the same for every database.

use std::time::Duration;

use async_trait::async_trait;
use mmate_idempotency::sequence::SequenceDatabase;
use mmate_idempotency::{OutboxDatabase, TransactionalDatabase};
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{AssertSqlSafe, Connection, Database, MySql, Pool, Postgres, Sqlite};

use super::Dialect;
use crate::program::Failure;

/// A value of a statement.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_enums, reason = "what the examples have")]
pub enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A whole number.
    Number(i64),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// A database that handlers have transactions in. Statements are written as [`Dialect::statement`] says; sqlx's types differ
/// by database, and this hides it.
#[async_trait]
pub trait Statements: TransactionalDatabase + OutboxDatabase + SequenceDatabase {
    /// What is special about it.
    const DIALECT: Dialect;

    /// Connects, with up to so many connections.
    ///
    /// # Errors
    /// When the database is not there.
    async fn connect(url: &str, most: u32) -> Result<Pool<Self>, Failure>;

    /// Executes a statement, and says how many rows it changed.
    ///
    /// # Errors
    /// When the database does not do it.
    async fn execute(
        connection: &mut Self::Connection,
        sql: &str,
        values: &[Value<'_>],
    ) -> sqlx::Result<u64>;

    /// The number that a query finds.
    ///
    /// # Errors
    /// When the database does not tell.
    async fn number(
        connection: &mut Self::Connection,
        sql: &str,
        values: &[Value<'_>],
    ) -> sqlx::Result<Option<i64>>;

    /// The texts that a query finds.
    ///
    /// # Errors
    /// When the database does not tell.
    async fn texts(
        connection: &mut Self::Connection,
        sql: &str,
        values: &[Value<'_>],
    ) -> sqlx::Result<Vec<String>>;

    /// The texts that a query finds, each with a number.
    ///
    /// # Errors
    /// When the database does not tell.
    async fn counts(
        connection: &mut Self::Connection,
        sql: &str,
    ) -> sqlx::Result<Vec<(String, i64)>>;
}

/// Adds the values to a query.
macro_rules! bound {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match *value {
                Value::Text(text) => query.bind(text.to_owned()),
                Value::Number(number) => query.bind(number),
            };
        }
        query
    }};
}

macro_rules! statements {
    ($database:ty, $dialect:expr, $connect:expr) => {
        #[async_trait]
        impl Statements for $database {
            const DIALECT: Dialect = $dialect;

            async fn connect(url: &str, most: u32) -> Result<Pool<Self>, Failure> {
                let options = PoolOptions::<Self>::new().max_connections(most);
                let pool = $connect(options, url).await;
                Ok(pool.map_err(|error| format!("cannot use the database: {error}"))?)
            }

            async fn execute(
                connection: &mut Self::Connection,
                sql: &str,
                values: &[Value<'_>],
            ) -> sqlx::Result<u64> {
                let sql = AssertSqlSafe(Self::DIALECT.statement(sql));
                let executed = bound!(sqlx::query::<Self>(sql), values).execute(connection);
                Ok(executed.await?.rows_affected())
            }

            async fn number(
                connection: &mut Self::Connection,
                sql: &str,
                values: &[Value<'_>],
            ) -> sqlx::Result<Option<i64>> {
                let sql = AssertSqlSafe(Self::DIALECT.statement(sql));
                let query = sqlx::query_scalar::<Self, i64>(sql);
                bound!(query, values).fetch_optional(connection).await
            }

            async fn texts(
                connection: &mut Self::Connection,
                sql: &str,
                values: &[Value<'_>],
            ) -> sqlx::Result<Vec<String>> {
                let sql = AssertSqlSafe(Self::DIALECT.statement(sql));
                let query = sqlx::query_scalar::<Self, String>(sql);
                bound!(query, values).fetch_all(connection).await
            }

            async fn counts(
                connection: &mut Self::Connection,
                sql: &str,
            ) -> sqlx::Result<Vec<(String, i64)>> {
                sqlx::query_as(AssertSqlSafe(sql.to_owned())).fetch_all(connection).await
            }
        }
    };
}

statements!(Sqlite, Dialect::Sqlite, open_file);
statements!(Postgres, Dialect::Postgres, reach);
statements!(MySql, Dialect::MariaDb, reach);

/// A pool tries again what is refused, and says in the end only that it waited: so it is looked first.
async fn reach<DB: Database>(options: PoolOptions<DB>, url: &str) -> sqlx::Result<Pool<DB>> {
    DB::Connection::connect(url).await?.close().await?;
    options.connect(url).await
}

async fn open_file(options: PoolOptions<Sqlite>, url: &str) -> sqlx::Result<Pool<Sqlite>> {
    let connect = SqliteConnectOptions::new()
        .filename(url.strip_prefix("sqlite:").unwrap_or(url))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(30));
    options.connect_with(connect).await
}

/// Calls something for the database that a URL leads to: `with_database!(url, DB => run::<DB>(url).await)`.
#[macro_export]
macro_rules! with_database {
    ($url:expr, $database:ident => $call:expr) => {
        match $crate::database::Dialect::of($url)? {
            $crate::database::Dialect::Sqlite => {
                type $database = sqlx::Sqlite;
                $call
            }
            $crate::database::Dialect::Postgres => {
                type $database = sqlx::Postgres;
                $call
            }
            $crate::database::Dialect::MariaDb => {
                type $database = sqlx::MySql;
                $call
            }
        }
    };
}
