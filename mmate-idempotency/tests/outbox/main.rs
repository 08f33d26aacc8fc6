//! What the outbox promises, in every database and on every transport.
//!
//! What arrives is read from the broker's own queues.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod bench;
mod database;

mod crashes;
mod handlers;
mod meters;
mod rabbitmq;
mod rows;
mod senders;
