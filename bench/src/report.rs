//! What is shown of the results.

use std::fmt::Write as _;

use crate::contest::{Ran, Reached, Results, Spread, number};
use crate::figures::Sample;
use crate::goal::{Bound, Compare};

/// The results for the terminal.
pub(crate) fn text(results: &Results) -> String {
    let mut text = format!("\n{} {}\n", results.name, results.title);
    for figure in &results.figures {
        let _ = writeln!(text, "  {figure}");
        for Ran { name, samples, .. } in &results.contenders {
            if let Some(spread) = spread(samples, figure) {
                let _ = writeln!(text, "    {name:<48} {}", shown(spread));
            }
        }
    }
    for reached in &results.goals {
        let _ = writeln!(text, "  {}", verdict(reached));
    }
    text
}

pub(crate) fn spread(samples: &[Sample], figure: &str) -> Option<Spread> {
    Spread::of(samples.iter().filter_map(|sample| sample.0.get(figure).copied()).collect())
}

fn shown(spread: Spread) -> String {
    let Spread { median, least, most } = spread;
    format!("{:>10}  ({} to {})", number(median), number(least), number(most))
}

pub(crate) fn verdict(reached: &Reached) -> String {
    let Reached { goal, value } = reached;
    let (sign, bound) = match goal.bound {
        Bound::AtLeast(bound) => ("≥", bound),
        Bound::AtMost(bound) => ("≤", bound),
    };
    let unit = match goal.compare {
        Compare::Ratio => "×",
        Compare::Difference | Compare::Nothing => goal.figure,
    };
    let mark = if goal.bound.holds(value.median) { "reached" } else { "MISSED " };
    format!("{mark} {:<4} {} {unit} (goal {sign} {bound}): {}", goal.id, shown(*value), goal.what)
}
