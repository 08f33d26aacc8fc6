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
/// It cannot be implemented elsewhere; its methods are for the strategy only, and may change.
#[async_trait]
pub trait TransactionalDatabase: Database + sealed::Sealed {
    /// The records in such a database.
    #[doc(hidden)]
    type Store: Store + Clone;

    /// What a transaction holds beside its connection, to be dropped after it.
    #[doc(hidden)]
    type Turn: Send + 'static;

    /// How its transactions are.
    #[doc(hidden)]
    type Options: Clone + Send + Sync + 'static;

    /// How they are unless told otherwise.
    #[doc(hidden)]
    fn options(pool: &Pool<Self>) -> Self::Options;

    /// The records in the pool's database.
    #[doc(hidden)]
    fn store(pool: Pool<Self>) -> Self::Store;

    #[doc(hidden)]
    fn with_table(store: Self::Store, name: &str) -> Result<Self::Store, InvalidTableName>;

    #[doc(hidden)]
    fn with_retention(store: Self::Store, retention: Retention) -> Self::Store;

    #[doc(hidden)]
    fn with_clock(store: Self::Store, clock: ManualClock) -> Self::Store;

    /// Waits until this process may begin another transaction.
    #[doc(hidden)]
    async fn turn(store: &Self::Store, options: &Self::Options) -> Self::Turn;

    /// Begins a transaction in which a claim may be made.
    #[doc(hidden)]
    async fn begin(
        pool: &Pool<Self>,
        options: &Self::Options,
    ) -> Result<PoolConnection<Self>, StoreError>;

    /// Claims within the transaction, and is done with it when the transaction commits.
    #[doc(hidden)]
    async fn record(
        store: &Self::Store,
        connection: &mut Self::Connection,
        request: &ClaimRequest<'_>,
    ) -> Result<Claim, StoreError>;

    /// Adds an answer to the record, within the transaction that made it.
    #[doc(hidden)]
    async fn answer(
        store: &Self::Store,
        connection: &mut Self::Connection,
        permit: &Permit,
        reply: &Bytes,
    ) -> Result<(), StoreError>;

    /// Claims for a group within its transaction: requests of different keys, and the answers in
    /// their order. What is granted counts as done at the commit only if
    /// [`complete_all`](Self::complete_all) said so: a handler that ends the transaction by itself
    /// would else make its neighbours done before they ran.
    #[doc(hidden)]
    async fn claim_all(
        store: &Self::Store,
        connection: &mut Self::Connection,
        requests: &[ClaimRequest<'_>],
    ) -> Result<Vec<Claim>, StoreError>;

    /// Is done with what [`claim_all`](Self::claim_all) granted when the transaction commits. Whether
    /// all of it was still there: it is not where a handler has rolled back by itself.
    #[doc(hidden)]
    async fn complete_all(
        store: &Self::Store,
        connection: &mut Self::Connection,
        permits: &[Permit],
    ) -> Result<bool, StoreError>;

    /// Whether a handler has ended the transaction by itself. Another one is begun in its place then.
    ///
    /// It is asked before another handler gets the transaction, which would else work without one.
    /// What is here asks nothing, and leaves it to the commit to find out.
    #[doc(hidden)]
    async fn is_ended(connection: &mut Self::Connection) -> Result<bool, StoreError> {
        let _ = connection;
        Ok(false)
    }

    /// Whether a connection is closed whose transaction was dropped: it cannot be put in order
    /// without waiting for it.
    #[doc(hidden)]
    const CLOSES_DROPPED: bool = false;

    /// Commits the transaction; an error means what [`uncommitted`](Self::uncommitted) says.
    #[doc(hidden)]
    async fn commit(connection: &mut Self::Connection) -> sqlx::Result<()> {
        <Self as Database>::TransactionManager::commit(connection).await
    }

    /// Rolls the transaction back.
    #[doc(hidden)]
    async fn rollback(connection: &mut Self::Connection) -> sqlx::Result<()> {
        Self::TransactionManager::rollback(connection).await
    }

    /// What a failure to commit means.
    #[doc(hidden)]
    fn uncommitted(error: &sqlx::Error) -> Uncommitted;

    /// Whether an error, of a statement or of the commit, says that the transaction was rolled back
    /// though there is nothing wrong with it.
    #[doc(hidden)]
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
