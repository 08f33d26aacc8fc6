//! What mmate's examples share: how they begin and end, their log, the pages by which they are
//! watched, their databases and stores by URL, who is signed in, a broker that misbehaves on demand, and a header that makes
//! requests over HTTP idempotent.

mod chaos;
pub mod database;
pub mod idempotency_key;
pub mod monitor;
pub mod program;
pub mod sign_in;
pub mod socket_client;
pub mod sockets;
pub mod stores;
pub mod telemetry;

pub use chaos::Chaos;

/// The examples of the project's front page, as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;

/// Those of the guide to connecting.
#[cfg(doctest)]
#[doc = include_str!("../../docs/connecting.md")]
struct Connecting;

/// Those of the page about choosing a strategy.
#[cfg(doctest)]
#[doc = include_str!("../../docs/choosing-a-strategy.md")]
struct Choosing;

/// Those of the page about fences.
#[cfg(doctest)]
#[doc = include_str!("../../docs/fencing.md")]
struct Fencing;

/// Those of the guide to idempotency without a broker.
#[cfg(doctest)]
#[doc = include_str!("../../docs/without-a-broker.md")]
struct WithoutABroker;

/// Those of the guide to the outbox.
#[cfg(doctest)]
#[doc = include_str!("../../docs/outbox.md")]
struct OutboxGuide;
