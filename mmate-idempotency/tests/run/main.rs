//! Work that is run once per key, without a broker, on every store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../strategies/faulty.rs"]
mod faulty;
mod gate;
mod house;
mod place;

mod callers;
mod crashes;
mod errors;
mod leases;
mod outages;
mod values;
mod waiting;
