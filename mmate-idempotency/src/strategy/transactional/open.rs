//! An open transaction, and its way to the handler and back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::pool::PoolConnection;
use sqlx::{Connection, Database};
use sqlx_core::transaction::TransactionManager;

use super::database::{TransactionalDatabase, Transactions, TurnOf};

/// An open transaction on a connection of a pool. Dropped, it rolls back before anybody else gets
/// the connection.
///
/// This is sqlx's `Transaction` but for one thing: of a connection whose state is in doubt it can
/// rid the pool.
pub(super) struct Open<DB: TransactionalDatabase> {
    connection: PoolConnection<DB>,
    is_open: bool,
    /// Whether an answer is waited for, or a commit has failed: whether there still is a transaction,
    /// nobody knows. Nor would a pool get the connection back before the answer came, which may never
    /// be; and until then the database would keep what is locked.
    in_doubt: bool,
    /// Dropped after the connection.
    turn: Option<TurnOf<DB>>,
}

impl<DB: TransactionalDatabase> Open<DB> {
    /// A transaction that was begun on this connection.
    pub(super) fn new(connection: PoolConnection<DB>) -> Self {
        Self { connection, is_open: true, in_doubt: false, turn: None }
    }

    /// Keeps others waiting until this one is over.
    pub(super) fn within(mut self, turn: TurnOf<DB>) -> Self {
        self.turn = Some(turn);
        self
    }

    pub(super) fn connection(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }

    /// Asks something on the connection. If the answer is not waited for any more, the connection is
    /// closed.
    pub(super) async fn ask<T>(&mut self, call: impl AsyncFnOnce(&mut DB::Connection) -> T) -> T {
        self.in_doubt = true;
        let answer = call(&mut self.connection).await;
        self.in_doubt = false;
        answer
    }

    pub(super) fn connection_ref(&self) -> &DB::Connection {
        &self.connection
    }

    /// Whether nothing is open but this transaction: no savepoint of the handler.
    pub(super) async fn is_plain(&mut self) -> bool {
        if self.depth() != 1 {
            // A savepoint that was dropped is on its way to being rolled back: an answer to
            // anything says that it is. If there is none, the commit will find out.
            let _ = self.connection.ping().await;
        }
        self.depth() == 1
    }

    fn depth(&self) -> usize {
        <DB as Database>::TransactionManager::get_transaction_depth(&self.connection)
    }

    pub(super) async fn commit(mut self) -> Result<(), CommitError> {
        if !self.is_plain().await {
            // One commit would end a savepoint only.
            return Err(CommitError::Savepoint);
        }
        self.in_doubt = true;
        DB::Transactions::commit(&mut self.connection).await.map_err(CommitError::Failed)?;
        (self.is_open, self.in_doubt) = (false, false);
        Ok(())
    }

    pub(super) async fn rollback(mut self) {
        if !self.is_plain().await {
            // One rollback would end a savepoint only: that is left to being dropped.
            return;
        }
        self.in_doubt = true;
        match DB::Transactions::rollback(&mut self.connection).await {
            Ok(()) => self.is_open = false,
            Err(error) => {
                tracing::debug!(%error, "a rollback failed; the connection is closed");
                self.connection.close_on_drop();
            }
        }
    }
}

impl<DB: TransactionalDatabase> Drop for Open<DB> {
    fn drop(&mut self) {
        if self.is_open {
            // One rollback would end a savepoint only.
            if self.in_doubt || self.depth() != 1 || DB::Transactions::CLOSES_DROPPED {
                self.connection.close_on_drop();
            }
            <DB as Database>::TransactionManager::start_rollback(&mut self.connection);
        }
    }
}

/// Why a transaction was not committed, as far as is known.
pub(super) enum CommitError {
    /// A savepoint of the handler is open.
    Savepoint,
    /// The database says so.
    Failed(sqlx::Error),
}

/// Where a message's transaction is while its handler runs.
pub(super) struct Slot<DB: TransactionalDatabase>(Arc<Mutex<Place<DB>>>);

enum Place<DB: TransactionalDatabase> {
    /// Here.
    Here(Open<DB>),
    /// The handler has it.
    Out,
    /// The handler has returned: a transaction that comes back now is rolled back.
    Closed,
}

impl<DB: TransactionalDatabase> Slot<DB> {
    fn new(open: Open<DB>) -> Self {
        Self(Arc::new(Mutex::new(Place::Here(open))))
    }

    /// Takes the transaction out, for the handler.
    pub(super) fn take(&self) -> Option<Open<DB>> {
        let mut place = self.place();
        match std::mem::replace(&mut *place, Place::Out) {
            Place::Here(open) => Some(open),
            other => {
                *place = other;
                None
            }
        }
    }

    /// Brings the transaction back.
    pub(super) fn bring_back(&self, open: Open<DB>) {
        let mut place = self.place();
        if matches!(*place, Place::Out) {
            *place = Place::Here(open);
        } else {
            drop(place);
            drop(open);
        }
    }

    /// The transaction, if it is here. From now on it is too late to bring it back.
    fn close(&self) -> Option<Open<DB>> {
        match std::mem::replace(&mut *self.place(), Place::Closed) {
            Place::Here(open) => Some(open),
            Place::Out | Place::Closed => None,
        }
    }

    fn place(&self) -> MutexGuard<'_, Place<DB>> {
        // Nothing panics while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the slot when the handling ends, also by being dropped: the context that handlers take
/// the transaction from lives on until the delivery is settled, and must not keep it open.
pub(super) struct Host<DB: TransactionalDatabase>(Slot<DB>);

impl<DB: TransactionalDatabase> Host<DB> {
    pub(super) fn new(open: Open<DB>) -> Self {
        Self(Slot::new(open))
    }

    pub(super) fn slot(&self) -> Slot<DB> {
        self.0.clone()
    }

    /// The transaction, if it is here.
    pub(super) fn close(self) -> Option<Open<DB>> {
        self.0.close()
    }
}

impl<DB: TransactionalDatabase> Drop for Host<DB> {
    fn drop(&mut self) {
        drop(self.0.close());
    }
}

impl<DB: TransactionalDatabase> Clone for Slot<DB> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
