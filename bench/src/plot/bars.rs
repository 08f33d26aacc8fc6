//! A bar for each contender.

use std::fmt::Write as _;

use crate::contest::{Results, number};
use crate::figures::RATE;
use crate::report::spread;

const WIDTH: f64 = 900.0;
const LABELS: f64 = 330.0;
const ROW: f64 = 28.0;

/// A bar for each contender's median of what the case is about first, with a line from its least to its most.
pub(super) fn draw(results: &Results) -> String {
    let figure = results.goals.first().map_or(RATE, |reached| reached.goal.figure);
    let rates: Vec<_> = results
        .contenders
        .iter()
        .filter_map(|ran| Some((&ran.name, spread(&ran.samples, figure)?)))
        .collect();
    let highest = rates.iter().map(|(_, rate)| rate.most).fold(1.0, f64::max);
    let length = |rate: f64| rate / highest * (WIDTH - LABELS - 110.0);
    let height = ROW * (rates.len() as f64 + 1.5);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{height:.0}\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\">{}: {figure}</text>\n",
        results.title
    );
    for (at, (name, rate)) in rates.iter().enumerate() {
        let top = ROW * (at as f64 + 1.0);
        let colour = if name.starts_with("mmate") { "#2060c0" } else { "#a0a0a0" };
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{LABELS}\" y=\"{:.0}\" width=\"{:.1}\" height=\"18\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.0}\" y2=\"{:.0}\" stroke=\"black\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
            LABELS - 8.0,
            top + 14.0,
            top,
            length(rate.median),
            LABELS + length(rate.least),
            LABELS + length(rate.most),
            top + 9.0,
            top + 9.0,
            LABELS + length(rate.most) + 8.0,
            top + 14.0,
            number(rate.median),
        );
    }
    svg.push_str("</svg>\n");
    svg
}
