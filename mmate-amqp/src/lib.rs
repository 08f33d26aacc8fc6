#![doc = include_str!("../README.md")]

mod address;
mod amqp;
mod connection;
mod consumer;
mod convert;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod link;
mod publisher;
mod settings;
mod settle;
mod telemetry;
#[cfg(feature = "tls")]
mod tls;
mod topology;

pub use amqp::Amqp;
#[cfg(feature = "tls")]
pub use tls::Tls;
