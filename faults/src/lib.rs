//! What mmate is put through on a real RabbitMQ: killed and frozen processes, a network that cuts, drops, slows down or
//! works in one direction only, a broker in distress.
//!
//! Each test in `tests/faults` is one fault. While messages are published and handled it does its harm, and measures how
//! long it takes until they flow again; that time is printed beside its limit, and the test fails above it. In the end the
//! [`Books`] are compared with the effects in the database and with what is left on the broker: nothing lost, nothing
//! doubled, nothing stuck.
//!
//! The crash-point [`matrix`] does its harm at a point of one message's way instead, on every strategy and store.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod matrix;
pub mod nemesis;
pub mod soak;

mod books;
mod child;
mod effects;
mod load;
mod log;
mod measure;
mod proxy;
mod scene;
mod shop;
mod witness;

pub use books::{Books, Verdict};
pub use child::Child;
pub use effects::Effects;
pub use load::Load;
pub use log::was_told;
pub use measure::{Recovery, is_long_run, memory, until, within};
pub use proxy::{Direction, Fate, Frame, Proxy, Weather};
pub use scene::Scene;
pub use shop::{Order, Report, Shop};
pub use witness::Witness;
