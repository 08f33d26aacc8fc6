//! The transaction as an argument of a handler.

use std::fmt;
use std::ops::{Deref, DerefMut};

use mmate_core::{Context, FromContext, HandlerError, Publisher, Requirement};

use super::database::TransactionalDatabase;
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
    publisher: Publisher,
    outbox: Option<Written>,
}

impl<DB: TransactionalDatabase> FromContext for Tx<DB> {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        let slot = context.extension::<Slot<DB>>().ok_or_else(|| {
            HandlerError::retryable(format!("the message is handled without a {}", name::<DB>()))
        })?;
        let open = slot.take().ok_or_else(|| {
            HandlerError::retryable(format!(
                "the handler takes a second {}; a message has one transaction",
                name::<DB>()
            ))
        })?;
        Ok(Self {
            open: Some(open),
            slot: slot.clone(),
            publisher: context.publisher().clone(),
            outbox: context.extension::<Written>().cloned(),
        })
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

impl<DB: TransactionalDatabase> Tx<DB> {
    /// The publisher that belongs to the message whose transaction it is.
    pub(crate) fn publisher(&self) -> &Publisher {
        &self.publisher
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
