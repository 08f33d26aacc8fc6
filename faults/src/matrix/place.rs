//! Where the records and effects of a cell are: nobody else's file, schema, database or prefix.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mmate_idempotency::{MemoryStore, MySqlStore, PostgresStore, RedisStore, SqliteStore, Store};
use serde::{Deserialize, Serialize};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, MySqlPool, PgPool, SqlitePool};

use super::cell::{Guard, Records};
use super::inside::{self, Step};

/// The servers that all cells share.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "the addresses of the servers there are")]
pub struct Servers {
    /// RabbitMQ.
    pub amqp: String,
    /// PostgreSQL.
    pub postgres: String,
    /// MariaDB.
    pub mariadb: String,
    /// Redis.
    pub redis: String,
}

/// Where the records and effects of a cell are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The name of schema, database or prefix.
    name: String,
    /// The files of SQLite.
    folder: PathBuf,
    /// The server, if there is one.
    pub(crate) url: String,
}

/// An effect that took place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effect {
    /// Of which message.
    pub(crate) id: String,
    /// In which attempt.
    pub(crate) attempt: i64,
    /// In which process.
    pub(crate) instance: String,
}

/// No unique constraint: a second effect must show.
const TABLE: &str =
    "effects (id VARCHAR(255) NOT NULL, attempt BIGINT NOT NULL, instance VARCHAR(255) NOT NULL)";
const LOOK: &str = "SELECT id, attempt, instance FROM effects";

impl Place {
    /// Makes it, with the table of effects.
    pub(crate) async fn make(name: String, folder: &Path, guard: Guard, servers: &Servers) -> Self {
        let mut place = Self { name, folder: folder.to_owned(), url: String::new() };
        let name = &place.name;
        match guard.records() {
            Records::Postgres => {
                let pool = postgres(&servers.postgres, 1).await;
                let sql = format!("CREATE SCHEMA {name}; CREATE TABLE {name}.{TABLE}");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
                place.url = format!("{}?options[search_path]={name}", servers.postgres);
            }
            Records::MariaDb => {
                let pool = mysql(&servers.mariadb, 1).await;
                let sql = format!("CREATE DATABASE {name}; CREATE TABLE {name}.{TABLE}");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
                let (server, _) = servers.mariadb.rsplit_once('/').unwrap();
                place.url = format!("{server}/{name}");
            }
            Records::Redis => place.url.clone_from(&servers.redis),
            Records::Memory | Records::Sqlite => {}
        }
        let sql = format!("CREATE TABLE {TABLE}; CREATE TABLE {}", inside::TABLE);
        let pool = place.file().await;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        place
    }

    /// The file that effects are in which no server has, and the records of `Transactional` on SQLite.
    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.db", self.name))
    }

    pub(crate) fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(self.path())
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(30))
    }

    pub(crate) async fn file(&self) -> SqlitePool {
        SqlitePoolOptions::new().max_connections(4).connect_with(self.options()).await.unwrap()
    }

    /// The store of a process.
    pub(crate) async fn store(&self, guard: Guard) -> Arc<dyn Store> {
        match guard.records() {
            Records::Memory => Arc::new(MemoryStore::new()),
            Records::Sqlite if guard.is_transactional() => {
                Arc::new(SqliteStore::open(self.path()).await.unwrap())
            }
            Records::Sqlite => {
                let file = self.folder.join(format!("{}-records.db", self.name));
                Arc::new(SqliteStore::open(file).await.unwrap())
            }
            Records::Postgres => Arc::new(PostgresStore::connect(&self.url).await.unwrap()),
            Records::MariaDb => Arc::new(MySqlStore::connect(&self.url).await.unwrap()),
            Records::Redis => {
                let store = RedisStore::connect(&self.url).await.unwrap();
                Arc::new(store.prefix(&self.name).unwrap())
            }
        }
    }

    /// All effects there are.
    pub(crate) async fn effects(&self, guard: Guard) -> Vec<Effect> {
        let rows: sqlx::Result<Vec<(String, i64, String)>> =
            match (guard.is_transactional(), guard.records()) {
                (true, Records::Postgres) => {
                    sqlx::query_as(LOOK).fetch_all(&postgres(&self.url, 1).await).await
                }
                (true, Records::MariaDb) => {
                    sqlx::query_as(LOOK).fetch_all(&mysql(&self.url, 1).await).await
                }
                _ => sqlx::query_as(LOOK).fetch_all(&self.file().await).await,
            };
        let effect = |(id, attempt, instance)| Effect { id, attempt, instance };
        rows.unwrap().into_iter().map(effect).collect()
    }

    /// Who came into a lock and left it, in that order.
    pub(crate) async fn visits(&self) -> Vec<Step> {
        let look = "SELECT id, fence, instance, enters FROM visits ORDER BY seq";
        let rows: Vec<(String, i64, String, bool)> =
            sqlx::query_as(look).fetch_all(&self.file().await).await.unwrap();
        let step = |(id, fence, instance, enters)| Step { id, fence, instance, enters };
        rows.into_iter().map(step).collect()
    }

    /// Removes what a server has of it.
    pub(crate) async fn remove(&self, guard: Guard) {
        let name = &self.name;
        match guard.records() {
            Records::Postgres => {
                let sql = AssertSqlSafe(format!("DROP SCHEMA {name} CASCADE"));
                sqlx::raw_sql(sql).execute(&postgres(&self.url, 1).await).await.unwrap();
            }
            Records::MariaDb => {
                let sql = AssertSqlSafe(format!("DROP DATABASE {name}"));
                sqlx::raw_sql(sql).execute(&mysql(&self.url, 1).await).await.unwrap();
            }
            Records::Memory | Records::Sqlite | Records::Redis => {}
        }
    }
}

pub(crate) async fn postgres(url: &str, connections: u32) -> PgPool {
    PgPoolOptions::new().max_connections(connections).connect(url).await.unwrap()
}

pub(crate) async fn mysql(url: &str, connections: u32) -> MySqlPool {
    MySqlPoolOptions::new().max_connections(connections).connect(url).await.unwrap()
}
