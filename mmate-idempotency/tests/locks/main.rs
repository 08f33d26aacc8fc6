//! One at a time, and what a paused process must not do any more.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scene;

mod composing;
mod exclusion;
mod fences;
mod losing;
#[cfg(feature = "redis")]
mod redis;
mod starting;
