//! What mmate's examples share: a broker that misbehaves on demand, their log, and the pages by
//! which they are watched.

mod chaos;
pub mod monitor;
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

/// Those of the guide to the outbox.
#[cfg(doctest)]
#[doc = include_str!("../../docs/outbox.md")]
struct OutboxGuide;
