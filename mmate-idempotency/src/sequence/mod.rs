//! Numbers without gaps, and messages in the order of their numbers.

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod database;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "redis"))]
mod limits;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod numbers;
#[cfg(feature = "redis")]
mod redis;
mod resequencer;

#[cfg(feature = "redis")]
pub use redis::RedisSequence;
pub use resequencer::{OnGap, Place, Resequencer, SequenceKey};
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use {database::SequenceDatabase, numbers::Sequence};
