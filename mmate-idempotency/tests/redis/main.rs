//! Redis as a store: what it agrees to, what it survives, and what it forgets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stores;
