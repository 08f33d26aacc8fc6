//! Numbers without gaps, and messages in the order of their numbers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod numbers;
mod resequencer;
