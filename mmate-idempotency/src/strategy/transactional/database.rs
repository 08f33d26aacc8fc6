//! What a database must offer to `Transactional`.

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};
use sqlx_core::transaction::TransactionManager;

use crate::protocol::{Claim, Retention};
use crate::store::{ClaimRequest, InvalidTableName, ManualClock, Permit, Store, StoreError};

/// A database that [`Transactional`](crate::Transactional) and [`Tx`](crate::Tx) work with:
/// `sqlx::Sqlite`, `sqlx::Postgres` and `sqlx::MySql`, each with the feature of its name.
///
/// It cannot be implemented elsewhere. It has no methods, so that a trait of yours can have it as a
/// supertrait and methods of any names:
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # mod shop {
/// use mmate_idempotency::{OutboxDatabase, TransactionalDatabase};
/// use sqlx::{Pool, Sqlite, Transaction};
///
/// #[async_trait::async_trait]
/// trait ShopDatabase: TransactionalDatabase + OutboxDatabase {
///     async fn begin(pool: &Pool<Self>) -> sqlx::Result<Transaction<'static, Self>>;
/// }
///
/// #[async_trait::async_trait]
/// impl ShopDatabase for Sqlite {
///     async fn begin(pool: &Pool<Self>) -> sqlx::Result<Transaction<'static, Self>> {
///         pool.begin_with("BEGIN IMMEDIATE").await
///     }
/// }
///
/// async fn order<DB: ShopDatabase>(pool: &Pool<DB>) -> sqlx::Result<()> {
///     DB::begin(pool).await?.commit().await
/// }
/// # }
/// ```
pub trait TransactionalDatabase: Database + sealed::Sealed {
    /// What the strategy does with it; may change.
    #[doc(hidden)]
    type Transactions: Transactions<Self>;
}

/// The records in such a database.
pub(super) type StoreOf<DB> =
    <<DB as TransactionalDatabase>::Transactions as Transactions<DB>>::Store;

/// How its transactions are.
pub(super) type OptionsOf<DB> =
    <<DB as TransactionalDatabase>::Transactions as Transactions<DB>>::Options;

/// What a transaction holds beside its connection.
pub(super) type TurnOf<DB> =
    <<DB as TransactionalDatabase>::Transactions as Transactions<DB>>::Turn;

/// What the strategy does with a database.
#[doc(hidden)]
#[async_trait]
#[expect(unnameable_types, reason = "for the strategy only")]
pub trait Transactions<DB: Database>: Sized + Send + Sync + 'static {
    /// The records in such a database.
    type Store: Store + Clone;

    /// What a transaction holds beside its connection, to be dropped after it.
    type Turn: Send + 'static;

    /// How its transactions are.
    type Options: Clone + Send + Sync + 'static;

    /// How they are unless told otherwise.
    fn options(pool: &Pool<DB>) -> Self::Options;

    /// The records in the pool's database.
    fn store(pool: Pool<DB>) -> Self::Store;

    fn with_table(store: Self::Store, name: &str) -> Result<Self::Store, InvalidTableName>;

    fn with_retention(store: Self::Store, retention: Retention) -> Self::Store;

    fn with_clock(store: Self::Store, clock: ManualClock) -> Self::Store;

    /// Waits until this process may begin another transaction.
    async fn turn(store: &Self::Store, options: &Self::Options) -> Self::Turn;

    /// Begins a transaction in which a claim may be made.
    async fn begin(
        pool: &Pool<DB>,
        options: &Self::Options,
    ) -> Result<PoolConnection<DB>, StoreError>;

    /// Claims within the transaction, and is done with it when the transaction commits.
    async fn record(
        store: &Self::Store,
        connection: &mut DB::Connection,
        request: &ClaimRequest<'_>,
    ) -> Result<Claim, StoreError>;

    /// Adds an answer to the record, within the transaction that made it.
    async fn answer(
        store: &Self::Store,
        connection: &mut DB::Connection,
        permit: &Permit,
        reply: &Bytes,
    ) -> Result<(), StoreError>;

    /// Claims for a group within its transaction: requests of different keys, and the answers in
    /// their order. What is granted counts as done at the commit only if
    /// [`complete_all`](Self::complete_all) said so: a handler that ends the transaction by itself
    /// would else make its neighbours done before they ran.
    async fn claim_all(
        store: &Self::Store,
        connection: &mut DB::Connection,
        requests: &[ClaimRequest<'_>],
    ) -> Result<Vec<Claim>, StoreError>;

    /// Is done with what [`claim_all`](Self::claim_all) granted when the transaction commits. Whether
    /// all of it was still there: it is not where a handler has rolled back by itself.
    async fn complete_all(
        store: &Self::Store,
        connection: &mut DB::Connection,
        permits: &[Permit],
    ) -> Result<bool, StoreError>;

    /// Whether a handler has ended the transaction by itself. Another one is begun in its place then.
    ///
    /// It is asked before another handler gets the transaction, which would else work without one.
    /// What is here asks nothing, and leaves it to the commit to find out.
    async fn is_ended(connection: &mut DB::Connection) -> Result<bool, StoreError> {
        let _ = connection;
        Ok(false)
    }

    /// Whether a connection is closed whose transaction was dropped: it cannot be put in order
    /// without waiting for it.
    const CLOSES_DROPPED: bool = false;

    /// Commits the transaction; an error means what [`uncommitted`](Self::uncommitted) says.
    async fn commit(connection: &mut DB::Connection) -> sqlx::Result<()> {
        DB::TransactionManager::commit(connection).await
    }

    /// Rolls the transaction back.
    async fn rollback(connection: &mut DB::Connection) -> sqlx::Result<()> {
        DB::TransactionManager::rollback(connection).await
    }

    /// What a failure to commit means.
    fn uncommitted(error: &sqlx::Error) -> Uncommitted;

    /// Whether an error, of a statement or of the commit, says that the transaction was rolled back
    /// though there is nothing wrong with it.
    #[must_use]
    fn gave_way(_error: &sqlx::Error) -> Option<GaveWay> {
        None
    }
}

/// What a failure to commit means.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(unnameable_types, reason = "for the strategy only")]
pub enum Uncommitted {
    /// What the handler did is refused: a constraint that is checked at the end is not met.
    Refused,
    /// A statement had failed before, so there was nothing to commit.
    Aborted,
    /// There was no transaction any more: the handler ended it by itself.
    Ended,
    /// Nobody knows.
    Unknown,
}

/// What becomes of a transaction that had to give way.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(unnameable_types, reason = "for the strategy only")]
pub enum GaveWay {
    /// It is repeated at once.
    Repeat,
    /// It has waited long enough for now.
    Later,
}

pub(super) mod sealed {
    #[expect(unnameable_types, reason = "that is its purpose")]
    pub trait Sealed {}
}
