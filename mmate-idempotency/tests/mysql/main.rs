//! What the store in MySQL and MariaDB, and `Transactional` over them, promise beyond what all
//! stores and strategies do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod bench;
mod crossing;
mod cuts;
mod database;
mod deaths;
mod handlers;
mod instances;
mod proxy;
mod records;
