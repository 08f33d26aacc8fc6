//! What a handler must not do with its transaction.

/// A handler did with its transaction what it must not.
#[derive(Debug, thiserror::Error)]
pub(super) enum TxMisused {
    #[error(
        "the handler returned while its Tx was still in use, so nothing can be committed; do not \
         move it into a task that outlives the handler"
    )]
    Kept,
    #[error(
        "a statement of the handler failed, and the handler returned as if it had not; after a \
         failure nothing can be committed: return the error, or put what may fail into a savepoint"
    )]
    Aborted,
    #[error("the handler returned with a savepoint open; commit it or roll it back before")]
    Savepoint,
    #[error(
        "the handler ended its transaction by itself; whether it takes effect is decided by what \
         the handler returns"
    )]
    Ended,
}
