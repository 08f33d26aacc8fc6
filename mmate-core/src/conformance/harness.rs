//! What the suite needs to know of the transport under test.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::transport::Transport;

/// A transport under test, and what the suite does to its broker beside it.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The transport under test.
    type Transport: Transport;

    /// The transport, set to a broker that is there. Each call gives one to the same broker.
    fn transport(&self) -> Self::Transport;

    /// Cuts every connection that transports of this harness have now, as a failing network or a
    /// restarting broker would: without a goodbye. Returns when they are cut, be it that the
    /// transport knows of it yet or not. New connections are possible at once, or soon.
    async fn cut(&self);

    /// How many messages wait in a queue: not those that a consumer was given, and not those that
    /// are delayed. 0 if there is no such queue.
    async fn ready(&self, queue: &str) -> usize;

    /// A name that nobody used before on this broker, and that is one word of a topic.
    fn unique_name(&self) -> String {
        format!("c{}", Uuid::now_v7().simple())
    }
}

/// The longest a case may take, on a slow machine with a slow broker.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a case within the suite's limit.
///
/// # Panics
/// When the case does not end in time.
pub async fn within_limit(case: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(LIMIT, case).await;
    assert!(ended.is_ok(), "the case did not end within {LIMIT:?}");
}
