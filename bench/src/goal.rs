//! What a case is to show.

use crate::figures::Figure;

/// How two figures are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    /// The first divided by the second.
    Ratio,
    /// The first less the second.
    Difference,
    /// With nothing: the figure itself.
    Nothing,
}

/// A bound.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

/// One comparison that a case is to show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    /// The number of the goal, such as `P1`.
    pub(crate) id: &'static str,
    /// What is compared, in words.
    pub(crate) what: &'static str,
    pub(crate) figure: Figure,
    pub(crate) contender: &'static str,
    /// The contenders it is compared with: with the best of them, if there are several.
    pub(crate) against: &'static [&'static str],
    pub(crate) compare: Compare,
    pub(crate) bound: Bound,
}
