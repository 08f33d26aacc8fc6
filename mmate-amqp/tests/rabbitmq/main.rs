//! What mmate-amqp does on a real RabbitMQ.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connecting;
mod dead_letters;
mod delays;
mod health;
mod matcher;
mod partitions;
mod proxy;
mod publishing;
mod recovery;
mod strangers;
mod support;
mod topology;
mod traffic;
