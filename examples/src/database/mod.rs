//! A database by its URL: SQLite, PostgreSQL or MariaDB, asked in the same words.

mod statements;

use std::fmt::Write;
use std::time::Duration;

use mmate_core::error_chain;
use mmate_core::health::Status;
use sqlx::any::{AnyArguments, AnyPoolOptions};
use sqlx::query::Query;
use sqlx::{Any, AnyPool, AssertSqlSafe};

pub use self::statements::{Statements, Value};
use crate::program::Failure;

/// How long a connection may take.
const CONNECTING: Duration = Duration::from_secs(1);

/// How it differs from the others in what it wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are three")]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// MariaDB, and MySQL.
    MariaDb,
}

impl Dialect {
    /// That of the database with this URL.
    ///
    /// # Errors
    /// When it is none of the three.
    pub fn of(url: &str) -> Result<Self, Failure> {
        match url.split_once(':') {
            Some(("sqlite", file)) if !file.is_empty() => Ok(Self::Sqlite),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres),
            Some(("mysql" | "mariadb", _)) => Ok(Self::MariaDb),
            _ => Err("a database is sqlite:FILE, postgres://… or mysql://…".into()),
        }
    }

    /// A statement with `$1`, `$2` …, each of them once and in this order, in this dialect.
    #[must_use]
    pub fn statement(self, sql: &str) -> String {
        if self != Self::MariaDb {
            return sql.to_owned();
        }
        let mut parts = sql.split('$');
        let mut statement = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
            // Writing into a String cannot fail.
            let _ = write!(statement, "?{rest}");
        }
        statement
    }

    /// An `INSERT` that does nothing if a row with such a key is there.
    #[must_use]
    pub fn insert_new(self, insert: &str) -> String {
        let statement = self.statement(insert);
        match self {
            Self::MariaDb => statement.replacen("INSERT", "INSERT IGNORE", 1),
            Self::Sqlite | Self::Postgres => format!("{statement} ON CONFLICT DO NOTHING"),
        }
    }

    /// A `CREATE TABLE` whose texts are compared byte by byte.
    #[must_use]
    pub fn table(self, create: &str) -> String {
        match self {
            Self::MariaDb => format!("{create} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
            Self::Sqlite | Self::Postgres => create.to_owned(),
        }
    }
}

/// Connections that are made when they are first used, so that a program starts while its database is away.
#[derive(Debug, Clone)]
pub struct Connections {
    pool: AnyPool,
    dialect: Dialect,
}

impl Connections {
    /// To the database with that URL, at most so many at a time.
    ///
    /// # Errors
    /// When it is no URL of a database.
    pub fn open(url: &str, most: u32) -> Result<Self, Failure> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(url)?;
        let url = match dialect {
            Dialect::Sqlite => format!("{url}?mode=rwc"),
            Dialect::Postgres | Dialect::MariaDb => url.to_owned(),
        };
        let pool = AnyPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(CONNECTING)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if dialect == Dialect::Sqlite {
                        // Readers and the writer do not wait for each other, and writers for a while.
                        let settings = "PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 10000";
                        sqlx::raw_sql(settings).execute(connection).await?;
                    }
                    Ok(())
                })
            })
            .connect_lazy(&url)
            .map_err(|error| format!("cannot use the database: {error}"))?;
        Ok(Self { pool, dialect })
    }

    /// The connections themselves.
    #[must_use]
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// What they lead to.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A statement, see [`Dialect::statement`].
    pub fn query(&self, sql: &str) -> Query<'static, Any, AnyArguments> {
        sqlx::query(AssertSqlSafe(self.dialect.statement(sql)))
    }

    /// See [`Dialect::insert_new`].
    pub fn insert_new(&self, insert: &str) -> Query<'static, Any, AnyArguments> {
        sqlx::query(AssertSqlSafe(self.dialect.insert_new(insert)))
    }

    /// Makes tables and indexes that are missing, one statement each. Whoever does it at the same time does no harm.
    ///
    /// # Errors
    /// When they cannot be made.
    pub async fn create(&self, statements: &[&str]) -> sqlx::Result<()> {
        for statement in statements {
            let statement = match statement.trim_start().starts_with("CREATE TABLE") {
                true => self.dialect.table(statement),
                false => (*statement).to_owned(),
            };
            let create = || sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&self.pool);
            // Of two that make it at the same time, PostgreSQL refuses one: then it is there.
            if create().await.is_err() {
                create().await?;
            }
        }
        Ok(())
    }

    /// Whether the database answers.
    pub async fn status(&self) -> Status {
        match sqlx::query("SELECT 1").execute(&self.pool).await {
            Ok(_) => Status::Up,
            Err(error) => Status::down(error_chain(&error)),
        }
    }

    /// Closes them.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::Dialect::{MariaDb, Postgres, Sqlite};

    #[test]
    fn what_stands_for_values_is_written_as_the_database_wants_it() {
        let sql = "INSERT INTO t (a, b) VALUES ($1, $2)";
        assert_eq!(Postgres.statement(sql), sql);
        assert_eq!(MariaDb.statement(sql), "INSERT INTO t (a, b) VALUES (?, ?)");
        assert_eq!(MariaDb.statement("SELECT 1"), "SELECT 1");
        assert_eq!(MariaDb.insert_new(sql), "INSERT IGNORE INTO t (a, b) VALUES (?, ?)");
        assert_eq!(Sqlite.insert_new(sql), format!("{sql} ON CONFLICT DO NOTHING"));
    }
}
