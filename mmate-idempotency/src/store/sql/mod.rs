//! What the stores in SQL databases have in common.

pub(crate) mod audit;
mod name;
mod row;
mod shape;

pub use name::InvalidTableName;
pub(crate) use name::{DEFAULT_TABLE, check_name};
pub(crate) use row::{Aim, Row, millis};
pub(crate) use shape::{LATER, Shape};
