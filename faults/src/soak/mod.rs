//! Long runs under load and many faults, judged from the outside.
//!
//! A soak starts servers of its own, a fleet of consumers as processes, and a publisher that keeps the books; a
//! [`Nemesis`](crate::nemesis::Nemesis) does its harm again and again. In the end a checker tells what became of every
//! message.

mod clock;
mod consumer;
mod counters;
mod fleet;
mod options;
mod page;
mod parts;
mod plan;
mod plot;
mod publisher;
mod run;
mod samples;
mod stage;
mod timeline;
mod truth;

pub(crate) use consumer::QUEUE;
pub use consumer::{Role, consume};
pub use options::{Name, Options};
pub use plan::Plan;
pub use run::{Outcome, run};
pub use stage::Stage;
