//! What a database must offer to sequences.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Database, Pool};

/// A database that [`Sequence`](super::Sequence) works with: `sqlx::Sqlite`, `sqlx::Postgres` or
/// `sqlx::MySql`, as the features of the crate say.
///
/// It cannot be implemented elsewhere. It has no methods, so that a trait of yours can have it as a
/// supertrait and methods of any names.
pub trait SequenceDatabase: Database + sealed::Sealed {
    /// What a sequence does with it; may change.
    #[doc(hidden)]
    type Numbers: Numbers<Self>;
}

/// What a sequence does with a database.
#[doc(hidden)]
#[async_trait]
#[expect(unnameable_types, reason = "for the sequence only")]
pub trait Numbers<DB: Database>: Sized + Send + Sync + 'static {
    /// Makes the table if it is missing.
    async fn create(pool: &Pool<DB>, table: &str) -> sqlx::Result<()>;

    /// Takes the next number within the transaction that is open on the connection.
    async fn next(
        connection: &mut DB::Connection,
        table: &str,
        sequence: &str,
        key: &str,
    ) -> sqlx::Result<i64>;

    /// The last number that was committed.
    async fn last(
        connection: &mut DB::Connection,
        table: &str,
        sequence: &str,
        key: &str,
    ) -> sqlx::Result<Option<i64>>;

    /// Makes sure that the next number is above this one.
    async fn raise(
        connection: &mut DB::Connection,
        table: &str,
        sequence: &str,
        key: &str,
        least: i64,
    ) -> sqlx::Result<()>;
}

mod sealed {
    #[expect(unnameable_types, reason = "that is its purpose")]
    pub trait Sealed {}
}

macro_rules! migration {
    ($folder:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/", $folder, "/sequences.sql"))
    };
}

/// `$next` comes back with the number itself, or else `$last` is asked for it: the row is locked by
/// then.
macro_rules! sequence_database {
    (
        $database:ty, $folder:literal, next: $next:literal, last: $last:literal, raise: $raise:literal,
        returns: $returns:literal
    ) => {
        impl sealed::Sealed for $database {}

        impl SequenceDatabase for $database {
            type Numbers = Self;
        }

        #[async_trait]
        impl Numbers<Self> for $database {
            async fn create(pool: &Pool<Self>, table: &str) -> sqlx::Result<()> {
                let sql = migration!($folder).replace("{table}", table);
                let mut connection = pool.acquire().await?;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await.map(drop)
            }

            async fn next(
                connection: &mut <Self as Database>::Connection,
                table: &str,
                sequence: &str,
                key: &str,
            ) -> sqlx::Result<i64> {
                let next = $next.replace("{table}", table);
                if $returns {
                    return sqlx::query_scalar(AssertSqlSafe(next))
                        .bind(sequence)
                        .bind(key)
                        .fetch_one(connection)
                        .await;
                }
                sqlx::query(AssertSqlSafe(next))
                    .bind(sequence)
                    .bind(key)
                    .execute(&mut *connection)
                    .await?;
                let last = Self::last(connection, table, sequence, key).await?;
                last.ok_or(sqlx::Error::RowNotFound)
            }

            async fn last(
                connection: &mut <Self as Database>::Connection,
                table: &str,
                sequence: &str,
                key: &str,
            ) -> sqlx::Result<Option<i64>> {
                sqlx::query_scalar(AssertSqlSafe($last.replace("{table}", table)))
                    .bind(sequence)
                    .bind(key)
                    .fetch_optional(connection)
                    .await
            }

            async fn raise(
                connection: &mut <Self as Database>::Connection,
                table: &str,
                sequence: &str,
                key: &str,
                least: i64,
            ) -> sqlx::Result<()> {
                sqlx::query(AssertSqlSafe($raise.replace("{table}", table)))
                    .bind(sequence)
                    .bind(key)
                    .bind(least)
                    .execute(connection)
                    .await
                    .map(drop)
            }
        }
    };
}

#[cfg(feature = "sqlite")]
sequence_database! {
    sqlx::Sqlite, "sqlite",
    next: "INSERT INTO \"{table}\" AS had (sequence_name, sequence_key, last) VALUES (?1, ?2, 1) \
           ON CONFLICT (sequence_name, sequence_key) DO UPDATE SET last = had.last + 1 \
           RETURNING last",
    last: "SELECT last FROM \"{table}\" WHERE sequence_name = ?1 AND sequence_key = ?2",
    raise: "INSERT INTO \"{table}\" AS had (sequence_name, sequence_key, last) VALUES (?1, ?2, ?3) \
            ON CONFLICT (sequence_name, sequence_key) \
            DO UPDATE SET last = max(had.last, excluded.last)",
    returns: true
}

#[cfg(feature = "postgres")]
sequence_database! {
    sqlx::Postgres, "postgres",
    next: "INSERT INTO \"{table}\" AS had (sequence_name, sequence_key, last) VALUES ($1, $2, 1) \
           ON CONFLICT (sequence_name, sequence_key) DO UPDATE SET last = had.last + 1 \
           RETURNING last",
    last: "SELECT last FROM \"{table}\" WHERE sequence_name = $1 AND sequence_key = $2",
    raise: "INSERT INTO \"{table}\" AS had (sequence_name, sequence_key, last) VALUES ($1, $2, $3) \
            ON CONFLICT (sequence_name, sequence_key) \
            DO UPDATE SET last = greatest(had.last, excluded.last)",
    returns: true
}

#[cfg(feature = "mysql")]
sequence_database! {
    sqlx::MySql, "mysql",
    next: "INSERT INTO `{table}` (sequence_name, sequence_key, last) VALUES (?, ?, 1) \
           ON DUPLICATE KEY UPDATE last = last + 1",
    last: "SELECT last FROM `{table}` WHERE sequence_name = ? AND sequence_key = ?",
    raise: "INSERT INTO `{table}` (sequence_name, sequence_key, last) VALUES (?, ?, ?) \
            ON DUPLICATE KEY UPDATE last = greatest(last, VALUES(last))",
    returns: false
}
