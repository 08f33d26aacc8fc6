#![doc = include_str!("../README.md")]

mod metrics;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub mod outbox;
mod strategy;

pub mod audit;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod protocol;
pub mod sequence;
pub mod store;

#[cfg(feature = "redis")]
pub use store::RedisStore;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use outbox::{Outbox, OutboxDatabase, OutboxError, OutboxMessage};
pub use store::{MemoryStore, Permit, Store, StoreError};
pub use strategy::{Fingerprint, Key, MissingId, OnBusy, Tracked};
#[cfg(feature = "sqlite")]
pub use {
    store::SqliteStore,
    strategy::{Transactional, TransactionalDatabase, Tx},
};
