//! What is broken is caught: stores by the conformance suite, and by the checker from the outside, as are handlers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod handlers;
mod scene;
mod store;
mod stores;
mod suite;
