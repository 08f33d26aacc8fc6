//! What the strategies promise, on every store and every transport.
//!
//! Effects are counted outside of the stores, in a list or a table without a unique constraint.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broker;
mod effects;
mod faulty;
mod house;

mod copies;
