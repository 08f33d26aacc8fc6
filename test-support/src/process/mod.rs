//! Processes that end with the value that stands for them, or else with this process.

mod group;
mod launch;
mod minder;
mod tree;

pub(crate) use group::Group;
pub(crate) use launch::Launch;
pub use minder::Minder;
