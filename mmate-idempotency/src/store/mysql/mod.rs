//! Records in a MySQL or MariaDB database.

mod audit;
mod batch;
mod failure;
mod purge;
mod records;
mod session;
mod shape;
mod statement;
mod table;
mod within;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{ConnectOptions, MySqlConnection, MySqlPool};

use self::failure::{failed, unreached};
pub(crate) use self::failure::{is_deadlock, is_lock_wait_timeout, is_no_savepoint};
use self::records::Records;
use self::session::Session;
use self::table::Table;
pub(crate) use self::within::{begin, commit, rollback};
use super::coalesce::{Call, Coalescer};
use super::sql::{DEFAULT_TABLE, InvalidTableName, Shape};
use super::{ClaimRequest, ManualClock, Permit, Promises, Store, StoreError};
use crate::protocol::{Claim, Held, Retention};

/// Records in a MySQL or MariaDB database: MySQL 8.0, MariaDB 10.6, or newer.
///
/// ```no_run
/// use mmate_idempotency::{MySqlStore, Tracked};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MySqlStore::connect("mysql://shop:secret@db.example/shop").await?;
/// let strategy = Tracked::new(store);
/// # let _ = strategy; Ok(()) }
/// ```
///
/// Calls that come while others are under way are made together, as one transaction in one round
/// trip. It is right at every isolation level of InnoDB. A call waits four seconds at most for a row
/// that somebody else has locked, and transactions in each other's way are made again.
///
/// What is done is as durable as the server's `innodb_flush_log_at_trx_commit`: with anything but 1
/// a power cut may undo what was acknowledged.
///
/// Cheap to clone; clones share connections, and their calls are made together.
#[derive(Clone)]
pub struct MySqlStore(Coalescer<Records>);

/// How many calls are made together.
const CALLS: usize = 64;
/// How many round trips are under way at once.
const LANES: usize = 4;

impl MySqlStore {
    /// Connects to a database, with a pool of the store's own; `url` is such as
    /// `mysql://user:password@host:3306/database`. Its statements are not logged.
    ///
    /// # Errors
    /// When the address makes no sense, or the database does not let us in. What is said has no
    /// password in it.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, StoreError> {
        const CONNECTING: &str = "connect to the database of processed messages";
        let options = MySqlConnectOptions::from_str(url.as_ref()).map_err(failed(CONNECTING))?;
        // A purge may go on beside the lanes.
        let connections = u32::try_from(LANES).unwrap_or(u32::MAX).saturating_add(1);
        let pool = MySqlPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_with(options.disable_statement_logging())
            .await
            .map_err(unreached(CONNECTING))?;
        Ok(Self::new(pool))
    }

    /// Uses a pool of connections as it is, up to four of them at once and none while a handler
    /// runs. The session's `innodb_lock_wait_timeout` is lowered to four seconds if it was longer.
    ///
    /// A statement has its values written into it, in hexadecimal. Where sqlx logs statements, as
    /// it does for slow ones if the pool was not told otherwise, ids and replies are in the log.
    #[must_use]
    pub fn new(pool: MySqlPool) -> Self {
        Self::of(Records {
            pool,
            table: Table::new(DEFAULT_TABLE).expect("the default name is an identifier"),
            retention: Retention::default(),
            clock: None,
        })
    }

    fn of(records: Records) -> Self {
        Self(Coalescer::new(records, CALLS, LANES))
    }

    fn records(&self) -> &Records {
        self.0.store()
    }

    /// Uses another table than `processed_messages`.
    ///
    /// # Errors
    /// When that cannot be the name of one.
    pub fn table(self, name: impl AsRef<str>) -> Result<Self, InvalidTableName> {
        let table = Table::new(name.as_ref())?;
        Ok(Self::of(Records { table, ..self.records().clone() }))
    }

    /// For how long duplicates are recognised after the work was done; seven days by default.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        self.retention(Retention::window(window))
    }

    /// For how long records are kept.
    #[must_use]
    pub fn retention(self, retention: Retention) -> Self {
        Self::of(Records { retention, ..self.records().clone() })
    }

    /// Uses another clock than the database's own, for tests.
    #[must_use]
    pub fn clock(self, clock: ManualClock) -> Self {
        Self::of(Records { clock: Some(clock), ..self.records().clone() })
    }

    /// Claims within a transaction that is open on this connection, and completes.
    pub(crate) async fn claim_within(
        &self,
        connection: &mut MySqlConnection,
        request: &ClaimRequest<'_>,
    ) -> Result<Claim, StoreError> {
        self.records().claim_within(connection, request).await
    }

    /// Claims for a group within a transaction that is open on this connection.
    pub(crate) async fn claim_all_within(
        &self,
        connection: &mut MySqlConnection,
        requests: &[ClaimRequest<'_>],
    ) -> Result<Vec<Claim>, StoreError> {
        self.records().claim_all_within(connection, requests).await
    }

    /// Completes what a group has claimed: whether all of it was there.
    pub(crate) async fn complete_all_within(
        &self,
        connection: &mut MySqlConnection,
        permits: &[Permit],
    ) -> Result<bool, StoreError> {
        self.records().complete_all_within(connection, permits).await
    }

    /// Adds the answer to a record that is done, within the transaction that made it so.
    pub(crate) async fn answer_within(
        &self,
        connection: &mut MySqlConnection,
        permit: &Permit,
        reply: &[u8],
    ) -> Result<(), StoreError> {
        self.records().answer_within(connection, permit, reply).await
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

#[async_trait]
impl Store for MySqlStore {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn remembers(&self) -> Option<Retention> {
        Some(self.records().retention)
    }

    fn promises(&self) -> Promises {
        Promises { durable: true, shared: true, complete: true }
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        const MAKING: &str = "make the table of processed messages";
        let Records { pool, table, .. } = self.records();
        let mut session = Session::of(pool).await.map_err(unreached(MAKING))?;
        // The right to make tables is only needed where there is none.
        let mut shape = table.check(&mut session).await?;
        if shape == Shape::Missing {
            table.create(&mut session).await.map_err(failed(MAKING))?;
            shape = table.check(&mut session).await?;
        }
        if shape == Shape::Earlier {
            table.add_traces(&mut session).await.map_err(failed(MAKING))?;
        }
        session.settled();
        Ok(())
    }

    async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        self.0.claim(request).await
    }

    async fn heartbeat(&self, permit: &Permit, lease: Duration) -> Result<Held, StoreError> {
        self.0.held(Call::Heartbeat { permit: permit.clone(), lease }).await
    }

    async fn complete(&self, permit: &Permit, reply: Option<Bytes>) -> Result<Held, StoreError> {
        self.0.held(Call::Complete { permit: permit.clone(), reply }).await
    }

    async fn release(&self, permit: &Permit) -> Result<Held, StoreError> {
        self.0.held(Call::Release { permit: permit.clone() }).await
    }

    async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        self.records().purge(at_most).await
    }
}

impl fmt::Debug for MySqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlStore")
            .field("table", &self.records().table.name)
            .field("retention", &self.records().retention)
            .finish_non_exhaustive()
    }
}
