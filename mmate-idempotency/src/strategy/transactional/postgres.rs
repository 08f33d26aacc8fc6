//! Transactions of PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Database, PgConnection, PgPool, Postgres, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Transactional;
use super::database::{GaveWay, TransactionalDatabase, Transactions, Uncommitted, sealed};
use crate::protocol::{Claim, Retention};
use crate::store::claim_call::ClaimCall;
use crate::store::postgres::{
    is_aborted, is_conflict, is_cut, is_ended, is_lock_timeout, is_refused, not_reached,
};
use crate::store::{
    ClaimRequest, InvalidTableName, ManualClock, Permit, PostgresStore, StoreError,
};

/// How transactions of PostgreSQL are.
#[derive(Debug, Clone)]
#[expect(unnameable_types, reason = "for the strategy only")]
pub struct Options {
    lock_timeout: Duration,
    idle_timeout: Duration,
    begin: Arc<str>,
    /// As many as there are connections: who waits for one does not take it for a database that
    /// does not answer.
    turns: Arc<Semaphore>,
}

impl Options {
    fn with_begin(mut self) -> Self {
        // The mark is gone with the transaction, so the commit finds out whether it still is in it.
        self.begin = format!(
            "BEGIN; SET LOCAL lock_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = {}; SET LOCAL mmate.open = 1",
            setting(self.lock_timeout),
            setting(self.idle_timeout),
        )
        .into();
        self
    }
}

/// In milliseconds; 0 would be no limit.
fn setting(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// A transaction in which a statement failed would be rolled back by `COMMIT` without an error, and
/// one that the handler ended would not be noticed; so the mark of [`Options::with_begin`] is read
/// in the same round trip. What `CHAIN` begins is ended when the connection is given back: that is
/// how sqlx, which counts transactions, comes to know of the end.
const COMMIT: &str = "SELECT current_setting('mmate.open')::int; COMMIT AND CHAIN";

impl Transactional<Postgres> {
    /// How long a statement, of the claim or of the handler, waits for what another transaction has
    /// locked; 5 s by default.
    ///
    /// Then the transaction is rolled back, and the message is deferred, which counts as no attempt
    /// of its handler until it was deferred a hundred times. So a copy of a message that is being
    /// handled waits for that long in a handler's place, with a connection, and comes back later.
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.options.lock_timeout = limit;
        self.options = self.options.with_begin();
        self
    }

    /// How long a handler may do something else between two statements of its transaction, which
    /// keeps others from what it has locked; 60 s by default.
    ///
    /// Then the database ends the transaction, whatever has become of this process, and the
    /// handler's attempt fails.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.options.idle_timeout = limit;
        self.options = self.options.with_begin();
        self
    }
}

/// A connection on which something was asked. If the answer is an error, or not waited for any more,
/// it is closed: the pool would wait for the answer before anybody got the connection, and that may
/// be for ever.
struct Asked<'c> {
    connection: &'c mut PoolConnection<Postgres>,
    is_answered: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.connection.close_on_drop();
        }
    }
}

impl sealed::Sealed for Postgres {}

impl TransactionalDatabase for Postgres {
    type Transactions = Self;
}

#[async_trait]
impl Transactions<Self> for Postgres {
    type Store = PostgresStore;
    type Turn = Option<OwnedSemaphorePermit>;
    type Options = Options;

    fn options(pool: &PgPool) -> Options {
        let connections = usize::try_from(pool.options().get_max_connections());
        let turns = connections.unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS);
        let options = Options {
            lock_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            begin: "".into(),
            turns: Arc::new(Semaphore::new(turns)),
        };
        options.with_begin()
    }

    fn store(pool: PgPool) -> PostgresStore {
        PostgresStore::new(pool)
    }

    fn with_table(store: PostgresStore, name: &str) -> Result<PostgresStore, InvalidTableName> {
        store.table(name)
    }

    fn with_retention(store: PostgresStore, retention: Retention) -> PostgresStore {
        store.retention(retention)
    }

    fn with_clock(store: PostgresStore, clock: ManualClock) -> PostgresStore {
        store.clock(clock)
    }

    async fn turn(_store: &PostgresStore, options: &Options) -> Self::Turn {
        // It is never closed.
        Arc::clone(&options.turns).acquire_owned().await.ok()
    }

    async fn begin(pool: &PgPool, options: &Options) -> Result<PoolConnection<Self>, StoreError> {
        const BEGINNING: &str = "begin a transaction";
        let mut connection = pool.acquire().await.map_err(not_reached(BEGINNING))?;
        let begin = Some(AssertSqlSafe(Arc::clone(&options.begin)).into_sql_str());
        let mut asked = Asked { connection: &mut connection, is_answered: false };
        let begun = <Self as Database>::TransactionManager::begin(asked.connection, begin).await;
        asked.is_answered = begun.is_ok();
        drop(asked);
        begun.map_err(not_reached(BEGINNING))?;
        Ok(connection)
    }

    async fn record(
        store: &PostgresStore,
        connection: &mut PgConnection,
        request: &ClaimRequest<'_>,
    ) -> Result<Claim, StoreError> {
        store.records().claim_in_transaction(connection, &ClaimCall::from(request)).await
    }

    async fn answer(
        store: &PostgresStore,
        connection: &mut PgConnection,
        permit: &Permit,
        reply: &Bytes,
    ) -> Result<(), StoreError> {
        store.records().answer_in_transaction(connection, permit, reply).await
    }

    async fn claim_all(
        store: &PostgresStore,
        connection: &mut PgConnection,
        requests: &[ClaimRequest<'_>],
    ) -> Result<Vec<Claim>, StoreError> {
        store.records().claim_all_in_transaction(connection, requests).await
    }

    async fn complete_all(
        store: &PostgresStore,
        connection: &mut PgConnection,
        permits: &[Permit],
    ) -> Result<bool, StoreError> {
        store.records().complete_all_in_transaction(connection, permits).await
    }

    async fn commit(connection: &mut PgConnection) -> sqlx::Result<()> {
        sqlx::raw_sql(COMMIT).execute(&mut *connection).await?;
        <Self as Database>::TransactionManager::start_rollback(connection);
        Ok(())
    }

    fn uncommitted(error: &sqlx::Error) -> Uncommitted {
        if is_aborted(error) {
            Uncommitted::Aborted
        } else if is_ended(error) {
            Uncommitted::Ended
        } else if is_refused(error) {
            Uncommitted::Refused
        } else {
            Uncommitted::Unknown
        }
    }

    fn gave_way(error: &sqlx::Error) -> Option<GaveWay> {
        if is_lock_timeout(error) {
            Some(GaveWay::Later)
        } else if is_conflict(error) || is_cut(error) {
            Some(GaveWay::Repeat)
        } else {
            None
        }
    }
}
