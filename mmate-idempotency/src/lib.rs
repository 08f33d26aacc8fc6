#![doc = include_str!("../README.md")]

mod metrics;
mod strategy;

pub mod audit;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod protocol;
pub mod sequence;
pub mod store;

#[cfg(feature = "redis")]
pub use store::RedisStore;
pub use store::{MemoryStore, Permit, Store, StoreError};
pub use strategy::{Fingerprint, Key, MissingId, OnBusy, Tracked};
#[cfg(feature = "sqlite")]
pub use {
    store::SqliteStore,
    strategy::{Transactional, TransactionalDatabase, Tx},
};
