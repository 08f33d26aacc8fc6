//! The example `event-processor`, with its producer and its listeners as processes of their own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scene;

mod away;
mod delivery;
mod demonstration;
mod kills;
mod pages;
mod rabbitmq;
