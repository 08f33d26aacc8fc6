//! What mmate-amqp does on a real RabbitMQ.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bodies;
mod closing;
mod connecting;
mod dead_letters;
mod delays;
mod health;
mod letters;
mod matcher;
mod nodes;
mod partitions;
mod permissions;
mod proxy;
mod publishing;
mod recovery;
mod requests;
mod strangers;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod topology;
mod traffic;
mod unconfirmed;
