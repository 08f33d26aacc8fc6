#![doc = include_str!("../README.md")]

mod metrics;
mod strategy;

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod fence;
pub mod protocol;
pub mod store;

pub use store::{MemoryStore, Permit, Store, StoreError};
pub use strategy::{Fingerprint, Key, LockPermit, Locked, MissingId, OnBusy, Tracked};
#[cfg(feature = "sqlite")]
pub use {
    store::SqliteStore,
    strategy::{Transactional, TransactionalDatabase, Tx},
};
