//! The crash-point matrix: each boundary of a message's way, times each fault that can be there, times each strategy
//! and store.
//!
//! In a [`Cell`] two processes compete for the messages of one queue, and one of them meets the fault. What must come of
//! it is [`expected`] by the rules; what did come of it is an [`Observed`].

mod cell;
mod consumer;
mod inside;
mod instance;
mod observed;
mod place;
mod point;
mod role;
mod rules;
mod run;
mod store;
mod table;
mod transport;
mod wire;

pub use cell::{Boundary, Cell, Fault, Guard, Records};
pub use consumer::consume;
pub use observed::Observed;
pub use place::Servers;
pub use role::{Defect, Role};
pub use rules::{Expected, Why, expected};
pub use run::Stage;
pub use table::table;
