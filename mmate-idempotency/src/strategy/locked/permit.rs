//! The lock as an argument of a handler.

use mmate_core::{Context, FromContext, HandlerError, Requirement};

use crate::store::{Permit, RecordKey};

/// The lock that the message being handled holds; of several the innermost. As an argument of a
/// handler it gives the lock's fence.
///
/// It is a type of its own, so that it is never mistaken for the [`Permit`] of the message's record,
/// which a handler may take beside it:
///
/// ```
/// use mmate_core::HandlerError;
/// use mmate_idempotency::{LockPermit, Permit};
///
/// async fn book(lock: LockPermit, message: Permit) -> Result<(), HandlerError> {
///     // UPDATE accounts SET …, last_fence = $1 WHERE id = $2 AND last_fence < $1
///     let fence = lock.fence_i64();
///     // The id of the call, the same at every attempt at this message.
///     let call = message.idempotency_key("charge-card");
/// #   let _ = (fence, call);
///     Ok(())
/// }
/// # let _ = book;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockPermit(Permit);

impl LockPermit {
    pub(super) fn new(permit: Permit) -> Self {
        Self(permit)
    }

    /// What is locked. Its scope begins with `//`, which that of no message's record does.
    #[must_use]
    pub fn key(&self) -> &RecordKey {
        self.0.key()
    }

    /// Higher than that of everybody who held this lock before; see [`Permit::fence`].
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.0.fence()
    }

    /// The fence, for a database; see [`Permit::fence_i64`].
    #[must_use]
    pub fn fence_i64(&self) -> i64 {
        self.0.fence_i64()
    }

    /// Ready once the lock is not held any more, be it lost or given back at the end of the
    /// handling; see [`Permit::lost`].
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.lost()
    }

    /// Whether the lock is not held any more, as far as is known here.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }
}

impl FromContext for LockPermit {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        let permit = context.extension::<Self>().cloned();
        permit.ok_or_else(|| HandlerError::retryable("the message runs without a lock"))
    }

    fn requirement() -> Option<Requirement> {
        Some(Requirement::new::<Self>(
            "LockPermit",
            "lock the subscription's messages with .middleware(Locked::by(store, key))",
        ))
    }
}
