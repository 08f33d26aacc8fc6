//! PostgreSQL, whose table of records is on a device that is full.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use mmate_core::{HandlerError, Meta};
use mmate_idempotency::{PostgresStore, Tracked, Transactional, Tx};
use mmate_test_support::PostgreSql;
use sqlx::{Connection, PgConnection, PgPool, Postgres};

use crate::{Disk, Effects, MESSAGES, fails_closed_and_goes_on};

/// A server of its own, and the file of its table of records.
struct Device {
    server: PostgreSql,
    file: Option<PathBuf>,
}

impl Device {
    fn new() -> Self {
        Self { server: PostgreSql::start().unwrap(), file: None }
    }

    async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.server.url()).await.unwrap()
    }

    /// A server keeps files open; one that begins opens them.
    async fn end_others(&self) {
        let sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        sqlx::query(sql).execute(&mut self.connection().await).await.unwrap();
    }
}

impl Disk for Device {
    /// What is written to the table, which is empty, is written to a device without room.
    async fn fill(&mut self) {
        let mut connection = self.connection().await;
        let sql = "SELECT pg_relation_filepath('processed_messages')";
        let path: String = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let file = self.server.folder().join("data").join(path);
        self.end_others().await;
        fs::rename(&file, file.with_extension("aside")).unwrap();
        symlink("/dev/full", &file).unwrap();
        self.file = Some(file);
        self.end_others().await;
    }

    async fn free(&mut self) {
        let file = self.file.take().unwrap();
        fs::rename(file.with_extension("aside"), &file).unwrap();
        self.end_others().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tracked_fails_closed_and_goes_on_with_postgresql() {
    let mut device = Device::new();
    let effects = Effects::default();
    let strategy = Tracked::new(PostgresStore::connect(&device.server.url()).await.unwrap());
    fails_closed_and_goes_on(&mut device, 0, strategy, effects.handler()).await;
    effects.assert_one_each_but_of_those_under_way();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_fail_closed_and_go_on_with_postgresql() {
    let mut device = Device::new();
    let pool = PgPool::connect(&device.server.url()).await.unwrap();
    sqlx::query("CREATE TABLE effects (id TEXT)").execute(&pool).await.unwrap();
    let handler = async |meta: Meta, mut tx: Tx<Postgres>| {
        let id = meta.id.map(|id| id.to_string());
        sqlx::query("INSERT INTO effects VALUES ($1)").bind(id).execute(&mut *tx).await?;
        Ok::<(), HandlerError>(())
    };
    fails_closed_and_goes_on(&mut device, 0, Transactional::new(pool.clone()), handler).await;
    let counted = "SELECT count(*), count(DISTINCT id) FROM effects";
    let counts: (i64, i64) = sqlx::query_as(counted).fetch_one(&pool).await.unwrap();
    assert_eq!(counts, (MESSAGES as i64, MESSAGES as i64));
}
