//! What the suite needs to know of the store under test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::protocol::{Retention, Time};
use crate::store::Store;

/// How long records are kept in every case.
pub const RETENTION: Retention = Retention::window(WINDOW);

pub(super) const WINDOW: Duration = Duration::from_secs(3600);

/// A store under test, and what the suite does to it from outside.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The store, ready to be used. All stores of one harness have the same records; if the store
    /// can be shared by processes, each call gives one with connections of its own.
    async fn store(&self) -> Arc<dyn Store>;

    /// Moves the store's clock on.
    async fn advance(&self, by: Duration);

    /// Moves the store's clock back.
    async fn turn_back(&self, by: Duration);

    /// What the store's clock shows. It stands still unless it is moved.
    async fn now(&self) -> Time;

    /// Whether records go by themselves when their time is over, so that a purge finds none.
    fn forgets_by_itself(&self) -> bool {
        false
    }

    /// Does to the records what the death of every process that uses them does. Only asked of a
    /// store that promises to be durable.
    async fn restart(&self) {}
}

/// The longest a case may take, on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);
/// The same with `MMATE_TEST_LONG=1`.
const LONG_LIMIT: Duration = Duration::from_secs(3600);

/// Whether the cases shall run at full length.
pub(super) fn is_long() -> bool {
    std::env::var_os("MMATE_TEST_LONG").is_some_and(|value| value == "1")
}

/// Runs a case within the suite's limit.
///
/// # Panics
/// When the case does not end in time.
pub async fn within_limit(case: impl Future<Output = ()>) {
    let limit = if is_long() { LONG_LIMIT } else { LIMIT };
    let ended = tokio::time::timeout(limit, case).await;
    assert!(ended.is_ok(), "the case did not end within {limit:?}");
}
