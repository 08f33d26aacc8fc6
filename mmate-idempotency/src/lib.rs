#![doc = include_str!("../README.md")]

mod metrics;
mod strategy;

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod protocol;
pub mod store;

#[cfg(feature = "mysql")]
pub use store::MySqlStore;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
pub use store::{MemoryStore, Permit, Store, StoreError};
pub use strategy::{Fingerprint, Key, MissingId, OnBusy, Tracked};
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use strategy::{Transactional, TransactionalDatabase, Tx};
