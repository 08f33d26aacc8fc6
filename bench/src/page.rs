//! The results as files: Markdown for people, JSON for programs, and a plot.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use crate::contest::{Ran, Results, Spread, number};
use crate::figures::RATE;
use crate::plot;
use crate::report::{spread, verdict};

/// Above this, the fastest round of a contender beside its slowest says that the machine did other things too.
const NOISY: f64 = 1.25;

/// Writes the results of a case.
pub(crate) fn write(results: &Results, folder: &Path, command: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let file = |ending: &str| folder.join(format!("{}.{ending}", results.name));
    std::fs::write(file("md"), markdown(results, command))?;
    std::fs::write(file("json"), serde_json::to_vec_pretty(&data(results, command))?)?;
    std::fs::write(file("svg"), plot::of(results))
}

fn markdown(results: &Results, command: &str) -> String {
    let Results { name, title, figures, contenders, goals, .. } = results;
    let mut text = format!("# {name}: {title}\n\n    {command}\n\n![Plot]({name}.svg)\n\n");
    text.push_str("Medians of the rounds, and their spread.\n\n|");
    let _ = writeln!(text, " | {} |", figures.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(figures.len()));
    for Ran { name, samples, .. } in contenders {
        let _ = write!(text, "| {name} |");
        for figure in figures {
            let cell = spread(samples, figure).map_or_else(String::new, |spread| {
                let Spread { median, least, most } = spread;
                format!("{} ({} to {})", number(median), number(least), number(most))
            });
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    if !goals.is_empty() {
        text.push_str("\nCompared round by round:\n\n");
    }
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
pub(crate) fn noisiest(results: &Results) -> Option<(&str, f64)> {
    let factor = |spread: Spread| spread.most / spread.least;
    let rates = results
        .contenders
        .iter()
        .filter_map(|ran| Some((ran.name.as_str(), factor(spread(&ran.samples, RATE)?))));
    rates.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, factor)| *factor > NOISY)
}

fn data(results: &Results, command: &str) -> serde_json::Value {
    let contenders = results.contenders.iter().map(|Ran { name, samples, .. }| {
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
