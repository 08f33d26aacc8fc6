//! How a table is found.

/// Whether the table of processed messages is there, and of which age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Missing,
    /// As it was made before there was the column [`LATER`]: those who know none go on with it when
    /// it is added.
    Earlier,
    Present,
}

/// The column that a later version has added.
pub(crate) const LATER: &str = "trace_parent";
