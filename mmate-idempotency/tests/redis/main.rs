//! Redis as a store: what it agrees to, what it survives, and what it forgets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/counted.rs"]
mod counted;
mod house;
mod log;
mod proxy;

mod addresses;
mod answers;
mod crashes;
mod errors;
mod failovers;
mod forgetting;
mod keeping;
mod keys;
mod outages;
mod sequences;
mod stores;
#[cfg(feature = "redis-tls")]
mod tls;
