//! What a database must offer to `Transactional`.

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};

use crate::protocol::{Claim, Retention};
use crate::store::{ClaimRequest, InvalidTableName, ManualClock, Permit, Store, StoreError};

/// A database that [`Transactional`](crate::Transactional) and [`Tx`](crate::Tx) work with:
/// `sqlx::Sqlite`.
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
    async fn turn(store: &Self::Store) -> Self::Turn;

    /// Begins a transaction in which a claim may be made.
    #[doc(hidden)]
    async fn begin(pool: &Pool<Self>) -> Result<PoolConnection<Self>, StoreError>;

    /// Claims within the transaction, and is done with it when the transaction commits.
    #[doc(hidden)]
    async fn record(
        store: &Self::Store,
        connection: &mut Self::Connection,
        request: &ClaimRequest<'_>,
    ) -> Result<Claim, StoreError>;

    /// Claims for a group within its transaction: requests of different keys, and the answers in
    /// their order. What is granted must count as done at the commit only if
    /// [`complete_all`](Self::complete_all) said so: a handler that ends the transaction by itself
    /// would else make its neighbours done before they ran.
    ///
    /// What is here falls short of that, and makes a round trip for each.
    #[doc(hidden)]
    async fn claim_all(
        store: &Self::Store,
        connection: &mut Self::Connection,
        requests: &[ClaimRequest<'_>],
    ) -> Result<Vec<Claim>, StoreError> {
        let mut claims = Vec::with_capacity(requests.len());
        for request in requests {
            claims.push(Self::record(store, connection, request).await?);
        }
        Ok(claims)
    }

    /// Is done with what [`claim_all`](Self::claim_all) granted when the transaction commits. Whether
    /// all of it was still there: it is not where a handler has rolled back by itself.
    #[doc(hidden)]
    async fn complete_all(
        store: &Self::Store,
        connection: &mut Self::Connection,
        permits: &[Permit],
    ) -> Result<bool, StoreError> {
        let _ = (store, connection, permits);
        Ok(true)
    }

    /// Whether a handler has ended the transaction by itself. Another one is begun in its place then.
    ///
    /// It is asked before another handler gets the transaction, which would else work without one.
    /// What is here asks nothing, and leaves it to the commit to find out.
    #[doc(hidden)]
    async fn is_ended(connection: &mut Self::Connection) -> Result<bool, StoreError> {
        let _ = connection;
        Ok(false)
    }

    /// What a failure to commit means.
    #[doc(hidden)]
    fn uncommitted(error: &sqlx::Error) -> Uncommitted;
}

/// What a failure to commit means.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(unnameable_types, reason = "for the strategy only")]
pub enum Uncommitted {
    /// What the handler did is refused: a constraint that is checked at the end is not met.
    Refused,
    /// There was no transaction any more: the handler ended it by itself.
    Ended,
    /// Nobody knows.
    Unknown,
}

pub(super) mod sealed {
    #[expect(unnameable_types, reason = "that is its purpose")]
    pub trait Sealed {}
}
