//! The transaction as an argument of a handler.

use std::fmt;
use std::ops::{Deref, DerefMut};

use mmate_core::{
    BatchContext, Context, FromBatch, FromContext, HandlerError, Publisher, Requirement,
};

use super::database::TransactionalDatabase;
use super::group::BatchTx;
use super::open::{Open, Slot};
use crate::outbox::Written;

/// The transaction of the message being handled: what is done in it takes effect together with
/// the record that the message is done, or not at all.
///
/// It is committed after the handler returned `Ok`, and rolled back in every other case; the
/// handler commits nothing by itself. Savepoints may be used (`tx.begin()` of
/// [`sqlx::Connection`]).
///
/// ```
/// use mmate_core::{HandlerError, Json};
/// use mmate_idempotency::Tx;
/// use sqlx::Sqlite;
///
/// async fn reserve(Json(sku): Json<String>, mut tx: Tx<Sqlite>) -> Result<(), HandlerError> {
///     sqlx::query("INSERT INTO reservations (sku) VALUES (?)").bind(sku).execute(&mut *tx).await?;
///     Ok(())
/// }
/// # let _ = reserve;
/// ```
pub struct Tx<DB: TransactionalDatabase> {
    /// Absent only while it is dropped.
    open: Option<Open<DB>>,
    slot: Slot<DB>,
    /// Absent in a batch, whose messages have theirs.
    publisher: Option<Publisher>,
    outbox: Option<Written>,
}

impl<DB: TransactionalDatabase> FromContext for Tx<DB> {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        let (publisher, outbox) = (context.publisher().clone(), context.extension().cloned());
        Self::take(context.extension(), Some(publisher), outbox)
    }

    fn requirement() -> Option<Requirement> {
        let name = name::<DB>();
        let mend = format!(
            "guard the subscription with .idempotent(Transactional::new(pool)), with a pool of {}",
            DB::NAME
        );
        Some(Requirement::new::<Self>(name, mend))
    }
}

/// Of a batch handler: the one transaction of all messages in the batch. It is committed if all of
/// them are done. If one is not, or the handler fails, it is rolled back, and the messages are handled
/// a second time within the same attempt, each as a batch of its own with its own transaction.
///
/// ```
/// use mmate_core::{Batch, HandlerError};
/// use mmate_idempotency::Tx;
/// use sqlx::Sqlite;
///
/// async fn reserve_all(batch: Batch<String>, mut tx: Tx<Sqlite>) -> Result<(), HandlerError> {
///     let mut insert = sqlx::QueryBuilder::new("INSERT INTO reservations (sku) ");
///     insert.push_values(batch.values(), |mut row, sku| {
///         row.push_bind(sku);
///     });
///     insert.build().execute(&mut *tx).await?;
///     Ok(())
/// }
/// # let _ = reserve_all;
/// ```
impl<DB: TransactionalDatabase> FromBatch for Tx<DB> {
    fn from_batch(context: &BatchContext) -> Result<Self, HandlerError> {
        let batch = context.value::<BatchTx<DB>>();
        Self::take(batch.map(|batch| &batch.slot), None, batch.map(|batch| batch.outbox.clone()))
    }

    fn requirement() -> Option<Requirement> {
        <Self as FromContext>::requirement()
    }
}

impl<DB: TransactionalDatabase> Tx<DB> {
    fn take(
        slot: Option<&Slot<DB>>,
        publisher: Option<Publisher>,
        outbox: Option<Written>,
    ) -> Result<Self, HandlerError> {
        let slot = slot.ok_or_else(|| {
            HandlerError::retryable(format!("the message is handled without a {}", name::<DB>()))
        })?;
        let open = slot.take().ok_or_else(|| {
            HandlerError::retryable(format!(
                "the handler takes a second {}; there is one transaction",
                name::<DB>()
            ))
        })?;
        Ok(Self { open: Some(open), slot: slot.clone(), publisher, outbox })
    }

    /// The publisher that belongs to the message whose transaction it is, unless it is that of a batch.
    pub(crate) fn publisher(&self) -> Option<&Publisher> {
        self.publisher.as_ref()
    }

    /// Notes that there will be something to send after the commit.
    pub(crate) fn wrote_to_outbox(&self) {
        if let Some(written) = &self.outbox {
            written.note();
        }
    }
}

/// As the user writes it.
fn name<DB>() -> String {
    let full = std::any::type_name::<DB>();
    format!("Tx<{}>", full.rsplit("::").next().unwrap_or(full))
}

impl<DB: TransactionalDatabase> Deref for Tx<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        self.open.as_ref().expect("a transaction is there until it is dropped").connection_ref()
    }
}

impl<DB: TransactionalDatabase> DerefMut for Tx<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.open.as_mut().expect("a transaction is there until it is dropped").connection()
    }
}

impl<DB: TransactionalDatabase> Drop for Tx<DB> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            self.slot.bring_back(open);
        }
    }
}

impl<DB: TransactionalDatabase> fmt::Debug for Tx<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name::<DB>())
    }
}
