//! The results as files: Markdown for people, JSON for programs, and a plot.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use crate::contest::{Results, Spread, number};
use crate::figures::RATE;
use crate::report::{spread, verdict};

/// Above this, the fastest round of a contender beside its slowest says that the machine did other things too.
const NOISY: f64 = 1.25;

/// Writes the results of a case.
pub(crate) fn write(results: &Results, folder: &Path, command: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let file = |ending: &str| folder.join(format!("{}.{ending}", results.name));
    std::fs::write(file("md"), markdown(results, command))?;
    std::fs::write(file("json"), serde_json::to_vec_pretty(&data(results, command))?)?;
    std::fs::write(file("svg"), plot(results))
}

fn markdown(results: &Results, command: &str) -> String {
    let Results { name, title, figures, contenders, goals } = results;
    let mut text = format!("# {name}: {title}\n\n    {command}\n\n![Plot]({name}.svg)\n\n");
    text.push_str("Medians of the rounds, and their spread.\n\n|");
    let _ = writeln!(text, " | {} |", figures.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(figures.len()));
    for (contender, samples) in contenders {
        let _ = write!(text, "| {contender} |");
        for figure in figures {
            let cell = spread(samples, figure).map_or_else(String::new, |spread| {
                let Spread { median, least, most } = spread;
                format!("{} ({} to {})", number(median), number(least), number(most))
            });
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text.push_str("\nCompared round by round:\n\n");
    for reached in goals {
        let _ = writeln!(
            text,
            "- {}",
            verdict(reached).split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    if let Some((contender, factor)) = noisiest(results) {
        let _ = writeln!(
            text,
            "\nThe machine was noisy: the fastest round of \"{contender}\" was {factor:.2} times its slowest. Ratios within \
             a round hold all the same."
        );
    }
    text
}

/// The contender whose rounds lie furthest apart, if that is too far.
pub(crate) fn noisiest(results: &Results) -> Option<(&'static str, f64)> {
    let factor = |spread: Spread| spread.most / spread.least;
    let rates = results
        .contenders
        .iter()
        .filter_map(|(name, samples)| Some((*name, factor(spread(samples, RATE)?))));
    rates.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, factor)| *factor > NOISY)
}

fn data(results: &Results, command: &str) -> serde_json::Value {
    let contenders = results.contenders.iter().map(|(name, samples)| {
        let rounds: Vec<_> = samples.iter().map(|sample| &sample.0).collect();
        json!({ "name": name, "rounds": rounds })
    });
    let goals = results.goals.iter().map(|reached| {
        let Spread { median, least, most } = reached.value;
        let goal = &reached.goal;
        json!({
            "id": goal.id, "what": goal.what, "contender": goal.contender, "against": goal.against,
            "figure": goal.figure, "median": median, "least": least, "most": most,
            "reached": goal.bound.holds(median),
        })
    });
    json!({
        "case": results.name,
        "title": results.title,
        "command": command,
        "contenders": contenders.collect::<Vec<_>>(),
        "goals": goals.collect::<Vec<_>>(),
    })
}

const WIDTH: f64 = 900.0;
const LABELS: f64 = 330.0;
const ROW: f64 = 28.0;

/// A bar for each contender's median of what the case is about first, with a line from its least to its most.
fn plot(results: &Results) -> String {
    let figure = results.goals.first().map_or(RATE, |reached| reached.goal.figure);
    let rates: Vec<_> = results
        .contenders
        .iter()
        .filter_map(|(name, samples)| Some((*name, spread(samples, figure)?)))
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
