//! A plot: effects a second, the memory of a consumer, and the faults.

use std::fmt::Write as _;

use super::samples::Sample;
use super::timeline::Fault;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;

/// A part of the plot with its own scale.
struct Panel {
    title: &'static str,
    top: f64,
    height: f64,
    highest: f64,
    colour: &'static str,
}

/// Draws it as SVG.
pub(super) fn draw(samples: &[Sample], faults: &[Fault]) -> String {
    let last = samples.last().map_or(1.0, |sample| sample.at).max(1.0);
    let x = |at: f64| LEFT + at / last * (WIDTH - LEFT - RIGHT);
    let rates = rates(samples, last);
    let memory: Vec<_> = samples
        .iter()
        .filter_map(|sample| Some((sample.at, sample.memory? as f64 / f64::from(1 << 20))))
        .collect();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} 480\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"480\" fill=\"white\"/>\n"
    );
    for fault in faults {
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"30\" y2=\"290\" stroke=\"#d04040\" stroke-opacity=\"0.3\">\
             <title>{at:.0} s: {nemesis}</title></line>",
            x = x(fault.at),
            at = fault.at,
            nemesis = fault.nemesis,
        );
    }
    let panels = [
        (
            Panel::over(
                "effects a second; each red line is a fault",
                30.0,
                260.0,
                &rates,
                "#2060c0",
            ),
            &rates,
        ),
        (
            Panel::over(
                "resident memory of the consumer that is never restarted, MiB",
                340.0,
                100.0,
                &memory,
                "#208040",
            ),
            &memory,
        ),
    ];
    for (panel, points) in panels {
        panel.draw(&mut svg, points, x);
    }
    for tick in 0..=10 {
        let at = last * f64::from(tick) / 10.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"465\" text-anchor=\"middle\">{at:.0} s</text>",
            x(at)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Effects a second, in some 250 parts of the time.
fn rates(samples: &[Sample], last: f64) -> Vec<(f64, f64)> {
    let width = (last / 250.0).max(1.0);
    let mut rates = Vec::new();
    let mut from: Option<&Sample> = None;
    for sample in samples {
        let Some(before) = from else {
            from = Some(sample);
            continue;
        };
        if sample.at - before.at >= width {
            let effects = sample.effects.saturating_sub(before.effects) as f64;
            rates.push((sample.at, effects / (sample.at - before.at)));
            from = Some(sample);
        }
    }
    rates
}

impl Panel {
    fn over(
        title: &'static str,
        top: f64,
        height: f64,
        points: &[(f64, f64)],
        colour: &'static str,
    ) -> Self {
        let highest = points.iter().map(|(_, value)| *value).fold(1.0, f64::max);
        Self { title, top, height, highest, colour }
    }

    fn draw(&self, svg: &mut String, points: &[(f64, f64)], x: impl Fn(f64) -> f64) {
        let Self { title, top, height, highest, colour } = self;
        let y = |value: f64| top + height * (1.0 - value / highest);
        for part in 0..=4 {
            let value = highest * f64::from(part) / 4.0;
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y(value) + 4.0,
                y = y(value),
            );
        }
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\">{title}</text>", top - 8.0);
        let line: Vec<_> =
            points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            line.join(" ")
        );
    }
}
