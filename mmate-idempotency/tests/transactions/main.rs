//! What `Transactional` promises beyond what every strategy does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod bench;
mod handlers;
mod place;
mod postgres;
mod starting;
mod writers;
