//! Records in a SQLite database.

mod audit;
mod failure;
mod gate;
mod group;
mod hand;
mod rows;
mod table;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool};

pub(crate) use self::failure::{failed, is_constraint, is_no_transaction, is_transaction_open};
pub(crate) use self::gate::{Gate, Inside};
use self::hand::{Hand, Source};
use self::table::Table;
use super::sql::{Aim, DEFAULT_TABLE, InvalidTableName, Shape, millis};
use super::{ClaimRequest, ManualClock, Permit, Promises, Store, StoreError};
use crate::protocol::{Claim, Held, Retention};

/// Records in a SQLite database: they survive the process, and several processes of one machine
/// may share them.
///
/// ```
/// use mmate_idempotency::{SqliteStore, Tracked};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("records.db");
/// let strategy = Tracked::new(SqliteStore::open(path).await?);
/// # let _ = strategy; Ok(()) }
/// ```
#[derive(Clone)]
pub struct SqliteStore {
    source: Source,
    gate: Gate,
    table: Table,
    retention: Retention,
    clock: Option<ManualClock>,
}

impl SqliteStore {
    /// Opens a database file, or makes one; `file` is a path or a URL such as
    /// `sqlite:///var/lib/app.db`.
    ///
    /// It is opened with a write-ahead log, and with `synchronous=FULL`: what was claimed or done
    /// is on the disk before anything is acknowledged. The weaker `NORMAL` would lose the last
    /// transactions with the machine's power, and so run their messages again; for a pool of that
    /// kind there is [`new`](Self::new).
    ///
    /// # Errors
    /// When the file cannot be opened or made.
    pub async fn open(file: impl AsRef<Path>) -> Result<Self, StoreError> {
        const OPENING: &str = "open the database of processed messages";
        let file = file.as_ref();
        let url = file.to_str().filter(|text| text.starts_with("sqlite:"));
        let options = match url {
            Some(url) => SqliteConnectOptions::from_str(url).map_err(failed(OPENING))?,
            None => SqliteConnectOptions::new().filename(file),
        };
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let source = Source::open(options, BUSY_TIMEOUT).await.map_err(failed(OPENING))?;
        Ok(Self::on(source))
    }

    /// Uses a pool of connections as it is. Writers of this process wait for each other at a gate,
    /// those of other processes as the pool's `busy_timeout` says.
    ///
    /// A call holds a connection for as long as it takes, and none while a handler runs. Still
    /// there must be one to spare: without any, heartbeats fail as well.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        Self::on(Source::Pool(pool))
    }

    fn on(source: Source) -> Self {
        Self {
            gate: source.gate(),
            source,
            table: Table::new(DEFAULT_TABLE).expect("the default name is an identifier"),
            retention: Retention::default(),
            clock: None,
        }
    }

    /// Uses another table than `processed_messages`.
    ///
    /// # Errors
    /// When that cannot be the name of one.
    pub fn table(mut self, name: impl AsRef<str>) -> Result<Self, InvalidTableName> {
        self.table = Table::new(name.as_ref())?;
        Ok(self)
    }

    /// For how long duplicates are recognised after the work was done; seven days by default.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        self.retention(Retention::window(window))
    }

    /// For how long records are kept.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Uses another clock than SQLite's own, for tests.
    #[must_use]
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// What a clock for tests says; SQLite's own is asked where this is absent.
    fn now(&self) -> Option<i64> {
        let now = self.clock.as_ref()?.now().as_millis();
        Some(i64::try_from(now).unwrap_or(i64::MAX))
    }

    async fn hand(&self, attempted: &'static str) -> Result<Hand, StoreError> {
        self.source.hand(&self.gate).await.map_err(failed(attempted))
    }

    /// Waits until this process may write.
    pub(crate) async fn enter(&self) -> Inside {
        self.gate.enter().await
    }
}

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// So many records are removed in one transaction: claims that wait at the gate come between.
const PURGED_AT_ONCE: u32 = 20;

#[async_trait]
impl Store for SqliteStore {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn promises(&self) -> Promises {
        Promises { durable: true, shared: true, complete: true }
    }

    fn remembers(&self) -> Option<Retention> {
        Some(self.retention)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        const MAKING: &str = "make the table of processed messages";
        let mut hand = self.hand(MAKING).await?;
        // Only what is missing is written, so that many instances start without waiting.
        let mut shape = self.table.check(&mut hand).await?;
        if shape == Shape::Missing {
            self.table.create(&mut hand).await.map_err(failed(MAKING))?;
            shape = self.table.check(&mut hand).await?;
        }
        if shape == Shape::Earlier {
            self.table.add_traces(&mut hand).await.map_err(failed(MAKING))?;
        }
        Ok(())
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        let mut hand = self.hand("claim a key").await?;
        let claim = self.claim_on(&mut hand, request, Aim::Work).await;
        hand.give_back(claim).await
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        let lease = millis(lease);
        let kept = lease.saturating_add(millis(self.retention.of_failures()));
        let query = sqlx::query(AssertSqlSafe(self.table.heartbeat.clone()))
            .bind(self.now())
            .bind(permit.key().scope())
            .bind(permit.key().id())
            .bind(&permit.holder().owner.as_bytes()[..])
            .bind(lease)
            .bind(kept);
        self.held("prolong a lease", query).await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        let query = self
            .of_holder(&self.table.complete, permit)
            .bind(self.retention.of_done().map(millis))
            .bind(reply.as_deref());
        self.held("complete a claim", query).await
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        let query =
            self.of_holder(&self.table.release, permit).bind(millis(self.retention.of_failures()));
        self.held("release a claim", query).await
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        let mut left = at_most;
        let mut removed = 0;
        while left > 0 {
            let part = left.min(PURGED_AT_ONCE);
            let query =
                sqlx::query(AssertSqlSafe(self.table.purge.clone())).bind(self.now()).bind(part);
            let gone = self.write("purge records", query).await?;
            removed += gone;
            if gone < u64::from(part) {
                break;
            }
            left -= part;
        }
        Ok(removed)
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

impl SqliteStore {
    /// Claims, or claims and completes, on a connection that may write.
    pub(crate) async fn claim_on(
        &self,
        connection: &mut SqliteConnection,
        request: &ClaimRequest<'_>,
        aim: Aim,
    ) -> Result<Claim, StoreError> {
        rows::claim(self, connection, request, aim).await
    }

    /// Adds the answer to a record that is done, within the transaction that made it so.
    pub(crate) async fn answer_on(
        &self,
        connection: &mut SqliteConnection,
        permit: &Permit,
        reply: &Bytes,
    ) -> Result<(), StoreError> {
        let query = self.of_holder(&self.table.answer, permit).bind(&**reply);
        query.execute(connection).await.map(drop).map_err(failed("keep an answer"))
    }

    /// Claims for a group, on a connection that may write.
    pub(crate) async fn claim_all_on(
        &self,
        connection: &mut SqliteConnection,
        requests: &[ClaimRequest<'_>],
    ) -> Result<Vec<Claim>, StoreError> {
        group::claim_all(self, connection, requests).await
    }

    /// Completes what a group has claimed: whether all of it was there.
    pub(crate) async fn complete_all_on(
        &self,
        connection: &mut SqliteConnection,
        permits: &[Permit],
    ) -> Result<bool, StoreError> {
        group::complete_all(self, connection, permits).await
    }

    fn of_holder<'q>(&self, sql: &std::sync::Arc<str>, permit: &'q Permit) -> Query<'q> {
        let holder = permit.holder();
        sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(self.now())
            .bind(permit.key().scope())
            .bind(permit.key().id())
            .bind(holder.owner.as_bytes().to_vec())
            .bind(i64::try_from(holder.fence).unwrap_or(i64::MAX))
    }

    async fn held(&self, attempted: &'static str, query: Query<'_>) -> Result<Held, StoreError> {
        let changed = self.write(attempted, query).await?;
        Ok(if changed > 0 { Held::Yes } else { Held::Refused })
    }

    async fn write(&self, attempted: &'static str, query: Query<'_>) -> Result<u64, StoreError> {
        let mut hand = self.hand(attempted).await?;
        let done = query.execute(&mut *hand).await.map_err(failed(attempted));
        Ok(hand.give_back(done).await?.rows_affected())
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("table", &self.table)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}
