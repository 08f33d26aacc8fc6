//! Transactions of SQLite.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::pool::PoolConnection;
use sqlx::{Database, SqlSafeStr, Sqlite, SqliteConnection, SqlitePool};
use sqlx_core::transaction::TransactionManager;

use super::database::{TransactionalDatabase, Transactions, Uncommitted, sealed};
use crate::protocol::{Claim, Retention};
use crate::store::sql::Aim;
use crate::store::sqlite::{Inside, failed, is_constraint, is_no_transaction, is_transaction_open};
use crate::store::{ClaimRequest, InvalidTableName, ManualClock, Permit, SqliteStore, StoreError};

impl sealed::Sealed for Sqlite {}

impl TransactionalDatabase for Sqlite {
    type Transactions = Self;
}

#[async_trait]
impl Transactions<Self> for Sqlite {
    type Store = SqliteStore;
    type Turn = Inside;
    type Options = ();

    fn options(_pool: &SqlitePool) {}

    fn store(pool: SqlitePool) -> SqliteStore {
        SqliteStore::new(pool)
    }

    fn with_table(store: SqliteStore, name: &str) -> Result<SqliteStore, InvalidTableName> {
        store.table(name)
    }

    fn with_retention(store: SqliteStore, retention: Retention) -> SqliteStore {
        store.retention(retention)
    }

    fn with_clock(store: SqliteStore, clock: ManualClock) -> SqliteStore {
        store.clock(clock)
    }

    async fn turn(store: &SqliteStore, (): &()) -> Inside {
        store.enter().await
    }

    async fn begin(pool: &SqlitePool, (): &()) -> Result<PoolConnection<Self>, StoreError> {
        const BEGINNING: &str = "begin a transaction";
        let mut connection = pool.acquire().await.map_err(failed(BEGINNING))?;
        // The write lock at once: a transaction that begins by reading may find itself unable to
        // write later, however long it waits.
        let begin = Some("BEGIN IMMEDIATE".into_sql_str());
        <Self as Database>::TransactionManager::begin(&mut connection, begin)
            .await
            .map_err(failed(BEGINNING))?;
        Ok(connection)
    }

    async fn record(
        store: &SqliteStore,
        connection: &mut SqliteConnection,
        request: &ClaimRequest<'_>,
    ) -> Result<Claim, StoreError> {
        store.claim_on(connection, request, Aim::Done).await
    }

    async fn answer(
        store: &SqliteStore,
        connection: &mut SqliteConnection,
        permit: &Permit,
        reply: &Bytes,
    ) -> Result<(), StoreError> {
        store.answer_on(connection, permit, reply).await
    }

    async fn claim_all(
        store: &SqliteStore,
        connection: &mut SqliteConnection,
        requests: &[ClaimRequest<'_>],
    ) -> Result<Vec<Claim>, StoreError> {
        store.claim_all_on(connection, requests).await
    }

    async fn complete_all(
        store: &SqliteStore,
        connection: &mut SqliteConnection,
        permits: &[Permit],
    ) -> Result<bool, StoreError> {
        store.complete_all_on(connection, permits).await
    }

    async fn is_ended(connection: &mut SqliteConnection) -> Result<bool, StoreError> {
        // SQLite refuses a transaction within a transaction, and harms neither.
        match sqlx::query("BEGIN").execute(connection).await {
            Ok(_) => Ok(true),
            Err(error) if is_transaction_open(&error) => Ok(false),
            Err(error) => Err(failed("look for a transaction")(error)),
        }
    }

    fn uncommitted(error: &sqlx::Error) -> Uncommitted {
        if is_constraint(error) {
            Uncommitted::Refused
        } else if is_no_transaction(error) {
            Uncommitted::Ended
        } else {
            Uncommitted::Unknown
        }
    }
}
