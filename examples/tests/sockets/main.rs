//! The examples that speak Socket.IO, with its ordinary clients, in processes of their own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod chat;
mod clients;
mod files;
mod photos;
