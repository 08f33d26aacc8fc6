//! What mmate's examples share: a broker that misbehaves on demand, and their log.

mod chaos;
pub mod telemetry;

pub use chaos::Chaos;
