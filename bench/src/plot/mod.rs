//! Plots of results.

mod bars;
mod curves;

use crate::contest::Results;

/// The plot of a case, as SVG.
pub(crate) fn of(results: &Results) -> String {
    match &results.curve {
        Some(curve) => curves::draw(results, curve),
        None => bars::draw(results),
    }
}
