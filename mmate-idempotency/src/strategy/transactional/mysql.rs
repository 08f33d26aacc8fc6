//! Transactions of MySQL and MariaDB.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::pool::PoolConnection;
use sqlx::{MySql, MySqlConnection, MySqlPool};

use super::database::{GaveWay, TransactionalDatabase, Transactions, Uncommitted, sealed};
use crate::protocol::{Claim, Retention};
use crate::store::mysql::{
    begin, commit, is_deadlock, is_lock_wait_timeout, is_no_savepoint, rollback,
};
use crate::store::{ClaimRequest, InvalidTableName, ManualClock, MySqlStore, Permit, StoreError};

impl sealed::Sealed for MySql {}

impl TransactionalDatabase for MySql {
    type Transactions = Self;
}

#[async_trait]
impl Transactions<Self> for MySql {
    type Store = MySqlStore;
    /// Rows are locked, not the database.
    type Turn = ();
    type Options = ();

    fn options(_pool: &MySqlPool) {}

    fn store(pool: MySqlPool) -> MySqlStore {
        MySqlStore::new(pool)
    }

    fn with_table(store: MySqlStore, name: &str) -> Result<MySqlStore, InvalidTableName> {
        store.table(name)
    }

    fn with_retention(store: MySqlStore, retention: Retention) -> MySqlStore {
        store.retention(retention)
    }

    fn with_clock(store: MySqlStore, clock: ManualClock) -> MySqlStore {
        store.clock(clock)
    }

    async fn turn(_store: &MySqlStore, (): &()) {}

    async fn begin(pool: &MySqlPool, (): &()) -> Result<PoolConnection<Self>, StoreError> {
        begin(pool).await
    }

    async fn record(
        store: &MySqlStore,
        connection: &mut MySqlConnection,
        request: &ClaimRequest<'_>,
    ) -> Result<Claim, StoreError> {
        store.claim_within(connection, request).await
    }

    async fn answer(
        store: &MySqlStore,
        connection: &mut MySqlConnection,
        permit: &Permit,
        reply: &Bytes,
    ) -> Result<(), StoreError> {
        store.answer_within(connection, permit, reply).await
    }

    async fn claim_all(
        store: &MySqlStore,
        connection: &mut MySqlConnection,
        requests: &[ClaimRequest<'_>],
    ) -> Result<Vec<Claim>, StoreError> {
        store.claim_all_within(connection, requests).await
    }

    async fn complete_all(
        store: &MySqlStore,
        connection: &mut MySqlConnection,
        permits: &[Permit],
    ) -> Result<bool, StoreError> {
        store.complete_all_within(connection, permits).await
    }

    /// It does not commit by itself until it is told to again.
    const CLOSES_DROPPED: bool = true;

    async fn commit(connection: &mut MySqlConnection) -> sqlx::Result<()> {
        commit(connection).await
    }

    async fn rollback(connection: &mut MySqlConnection) -> sqlx::Result<()> {
        rollback(connection).await
    }

    fn uncommitted(error: &sqlx::Error) -> Uncommitted {
        if is_no_savepoint(error) {
            Uncommitted::Ended
        } else if is_deadlock(error) {
            // Of a cluster, whose members find out at the end.
            Uncommitted::Refused
        } else {
            Uncommitted::Unknown
        }
    }

    fn gave_way(error: &sqlx::Error) -> Option<GaveWay> {
        if is_deadlock(error) {
            Some(GaveWay::Repeat)
        } else if is_lock_wait_timeout(error) {
            Some(GaveWay::Later)
        } else {
            None
        }
    }
}
