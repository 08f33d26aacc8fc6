//! Curves through contenders that differ in one value.

use std::fmt::Write as _;

use crate::contest::{Curve, Results, Spread, number};
use crate::figures::Figure;
use crate::report::spread;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// One for each curve.
const COLOURS: [&str; 6] = ["#2060c0", "#a0a0a0", "#c06020", "#209060", "#8040a0", "#b02040"];

/// What one curve goes through.
struct Line {
    name: String,
    points: Vec<(u32, Spread)>,
}

/// A curve for each name and figure, through the medians, with a line from least to most at each point. Values grow by
/// factors from left to right, and figures from the bottom up.
pub(super) fn draw(results: &Results, curve: &Curve) -> String {
    let lines = lines(results, curve);
    let values = || lines.iter().flat_map(|line| line.points.iter().map(|(at, _)| *at));
    let spreads = || lines.iter().flat_map(|line| line.points.iter().map(|(_, spread)| *spread));
    let (first, last) = (values().min().unwrap_or(1), values().max().unwrap_or(1));
    let highest = spreads().map(|spread| spread.most).fold(1e-9, f64::max);
    let logarithm = |value: u32| f64::from(value.max(1)).ln();
    let width = (logarithm(last) - logarithm(first)).max(1e-9);
    let x = |at: u32| LEFT + (logarithm(at) - logarithm(first)) / width * (WIDTH - LEFT - RIGHT);
    let y = |figure: f64| HEIGHT - BOTTOM - figure / highest * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\">{}: {}</text>\n<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>\n",
        results.title,
        curve.figures.join(" and "),
        f64::midpoint(LEFT, WIDTH),
        HEIGHT - 10.0,
        curve.axis,
    );
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#e0e0e0\"/>\
             <text x=\"{2:.0}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
            WIDTH - RIGHT,
            y(highest * share),
            LEFT - 8.0,
            y(highest * share) + 4.0,
            number(highest * share),
        );
    }
    let mut marks: Vec<_> = values().collect();
    marks.sort_unstable();
    marks.dedup();
    for at in marks {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{at}</text>",
            x(at),
            HEIGHT - BOTTOM + 18.0,
        );
    }
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let mut path = String::new();
        for (at, spread) in &line.points {
            let step = if path.is_empty() { "M" } else { "L" };
            let _ = write!(path, "{step}{:.1} {:.1}", x(*at), y(spread.median));
            let _ = writeln!(
                svg,
                "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{2:.1}\" stroke=\"{colour}\"/>\
                 <circle cx=\"{0:.1}\" cy=\"{3:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*at),
                y(spread.least),
                y(spread.most),
                y(spread.median),
            );
        }
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\" fill=\"{colour}\">{}</text>",
            LEFT + 10.0,
            TOP + 16.0 * (number as f64 + 1.0),
            line.name,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn lines(results: &Results, curve: &Curve) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for figure in curve.figures {
        for ran in &results.contenders {
            let Some((point, spread)) = ran.point.zip(spread(&ran.samples, figure)) else {
                continue;
            };
            let name = name(point.of, figure, curve);
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push((point.at, spread)),
                None => lines.push(Line { name, points: vec![(point.at, spread)] }),
            }
        }
    }
    lines
}

fn name(of: &str, figure: Figure, curve: &Curve) -> String {
    match curve.figures.len() {
        1 => of.to_owned(),
        _ => format!("{of}: {figure}"),
    }
}
