//! What `Transactional` promises when many messages share one transaction.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../strategies/broker.rs"]
mod broker;

mod batches;
mod bench;
mod crashes;
mod failing;
mod load;
mod sharing;
mod speed;
