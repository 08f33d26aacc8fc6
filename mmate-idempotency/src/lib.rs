#![doc = include_str!("../README.md")]

mod metrics;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub mod outbox;
mod run;
mod strategy;
mod sync;

pub mod audit;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod fence;
pub mod protocol;
pub mod sequence;
pub mod store;

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use outbox::{Outbox, OutboxDatabase, OutboxError, OutboxMessage};
pub use run::{Idempotent, Ran, Run, RunError};
#[cfg(feature = "mysql")]
pub use store::MySqlStore;
#[cfg(feature = "postgres")]
pub use store::PostgresStore;
#[cfg(feature = "redis")]
pub use store::RedisStore;
#[cfg(feature = "redis-tls")]
pub use store::RedisTls;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
pub use store::{MemoryStore, Permit, Store, StoreError};
pub use strategy::{Fingerprint, Key, LockPermit, Locked, MissingId, OnBusy, Tracked};
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use strategy::{GroupCommit, Transactional, TransactionalDatabase, Tx};
