//! What the strategies promise, on every store and every transport.
//!
//! Effects are counted outside of the stores, in a list or a table without a unique constraint.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broker;
mod databases;
mod effects;
mod faulty;
mod house;

mod acknowledgements;
mod batches;
mod business_keys;
mod claims;
mod conservation;
mod copies;
mod crashes;
mod failures;
mod keys;
mod leases;
mod ordering;
mod outages;
mod replies;
mod scopes;
mod windows;
