//! Records in a PostgreSQL database.

mod audit;
mod failure;
mod hand;
mod insert;
mod records;
mod rows;
mod table;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

pub(crate) use self::failure::{
    failed, is_aborted, is_conflict, is_cut, is_ended, is_lock_timeout, is_refused, not_reached,
};
use self::hand::Source;
pub(crate) use self::records::Records;
use self::table::Table;
use super::coalesce::{Call, Coalescer};
use super::sql::{DEFAULT_TABLE, InvalidTableName, Shape};
use super::{ClaimRequest, ManualClock, Permit, Promises, Store, StoreError, StoreErrorKind};
use crate::protocol::{Claim, Held, Retention};

/// Records in a PostgreSQL database (12 or newer), shared by all instances of all services that use
/// it.
///
/// What a process asks at the same time is asked together: while one statement is under way, calls
/// gather, and are the next one. Time is the database's own.
///
/// ```no_run
/// use mmate_idempotency::{PostgresStore, Tracked};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::connect("postgres://shop@db.example.com/shop").await?;
/// let strategy = Tracked::new(store);
/// # let _ = strategy; Ok(()) }
/// ```
///
/// The table is found, or made, by the connection's `search_path`; a URL that ends in
/// `?options[search_path]=records` puts it into the schema `records`.
///
/// Cheap to clone; clones share connections, and ask together.
#[derive(Clone)]
pub struct PostgresStore(Coalescer<Records>);

/// How many connections of its own a store has at most. Groups on PostgreSQL with two cores are
/// fastest on four (`docs/performance/groups.md`), and calls that come together share one.
const CONNECTIONS: usize = 4;

/// How many calls are answered in one round trip at most.
const AT_ONCE: usize = 256;

impl PostgresStore {
    /// Connects to a database; the URL is such as `postgres://user:password@host/database`.
    ///
    /// The store keeps up to four connections of its own, whose answers may take ten seconds, so
    /// that nothing that handlers do with theirs keeps it from prolonging leases.
    ///
    /// # Errors
    /// When the URL is none, or there is no such database, or it cannot be reached.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        const CONNECTING: &str = "connect to the database of processed messages";
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            let text = "the address of a PostgreSQL begins with postgres://";
            return Err(StoreError::new(StoreErrorKind::Permanent, CONNECTING, text));
        }
        let options = PgConnectOptions::from_str(url).map_err(failed(CONNECTING))?;
        records::within(CONNECTING, async {
            let source = Source::open(options, CONNECTIONS).await;
            source.map(Self::on).map_err(not_reached(CONNECTING))
        })
        .await
    }

    /// Uses a pool of connections as it is, four of them at the same time at most.
    ///
    /// A call holds a connection for as long as it takes, and none while a handler runs. Still
    /// there must be one to spare: without any, heartbeats fail as well.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::on(Source::Pool(pool))
    }

    fn on(source: Source) -> Self {
        Self::of(Records {
            source,
            table: Table::new(DEFAULT_TABLE).expect("the default name is an identifier"),
            retention: Retention::default(),
            clock: None,
        })
    }

    fn of(records: Records) -> Self {
        let lanes = records.source.size().min(CONNECTIONS);
        Self(Coalescer::new(records, AT_ONCE, lanes))
    }

    fn with(self, change: impl FnOnce(&mut Records)) -> Self {
        let mut records = self.records().clone();
        change(&mut records);
        Self::of(records)
    }

    /// Uses another table than `processed_messages`.
    ///
    /// # Errors
    /// When that cannot be the name of one.
    pub fn table(self, name: impl AsRef<str>) -> Result<Self, InvalidTableName> {
        let table = Table::new(name.as_ref())?;
        Ok(self.with(|records| records.table = table))
    }

    /// For how long duplicates are recognised after the work was done; seven days by default.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        self.retention(Retention::window(window))
    }

    /// For how long records are kept.
    #[must_use]
    pub fn retention(self, retention: Retention) -> Self {
        self.with(|records| records.retention = retention)
    }

    /// Uses another clock than PostgreSQL's own, for tests.
    #[must_use]
    pub fn clock(self, clock: ManualClock) -> Self {
        self.with(|records| records.clock = Some(clock))
    }

    pub(crate) fn records(&self) -> &Records {
        self.0.store()
    }
}

/// How long instances wait for the one that makes the table.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);

#[async_trait]
impl Store for PostgresStore {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn remembers(&self) -> Option<Retention> {
        Some(self.records().retention)
    }

    fn promises(&self) -> Promises {
        Promises { durable: true, shared: true, complete: true }
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        const MAKING: &str = "make the table of processed messages";
        let records = self.records();
        let making = async {
            // Not given back where it fails: it may be within a transaction.
            let mut hand = records.hand(MAKING).await?;
            // Only what is missing is written, so that who may not make it can use it.
            if records.table.check(&mut hand).await? != Shape::Present {
                records.table.create(&mut hand).await?;
            }
            hand.give_back(Ok(())).map_err(failed(MAKING))
        };
        tokio::time::timeout(MIGRATION_TIMEOUT, making).await.unwrap_or_else(|_| {
            let text = format!("no answer within {MIGRATION_TIMEOUT:?}");
            Err(StoreError::new(StoreErrorKind::Unknown, MAKING, text))
        })
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

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("table", &self.records().table)
            .field("retention", &self.records().retention)
            .finish_non_exhaustive()
    }
}
