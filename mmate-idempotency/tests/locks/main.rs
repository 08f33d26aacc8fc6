//! One at a time, and what a paused process must not do any more, on every store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../strategies/faulty.rs"]
mod faulty;
#[path = "../run/gate.rs"]
mod gate;
mod house;
#[path = "../run/place.rs"]
mod place;
mod scene;

mod composing;
mod exclusion;
mod fences;
mod leases;
mod losing;
mod redis;
mod starting;
