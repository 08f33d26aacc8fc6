//! The private servers themselves: they start, answer, come back with their data, and leave nothing behind.

#![expect(clippy::unwrap_used, reason = "what helps a test fails as a test does")]

mod left_behind;
mod mariadb;
mod postgresql;
mod rabbitmq;
mod redis;
mod with_servers;
