//! The table that is published.

use std::fmt::Write;

use super::cell::{Boundary, Cell, Fault, Guard};
use super::observed::Observed;
use super::rules::{Expected, expected};

/// A table for each fault: a row for each boundary, a column for each strategy and store. `–` stands for a cell that was
/// not run.
#[must_use]
pub fn table(results: &[Observed]) -> String {
    let mut text = String::new();
    for fault in Fault::ALL {
        // Writing to a string does not fail.
        let _ = writeln!(text, "### {}\n", capitalised(&fault.to_string()));
        let heads = Guard::ALL.map(|guard| guard.to_string().replacen(' ', "<br>", 1));
        let _ = writeln!(text, "| | {} |", heads.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(Guard::ALL.len()));
        for boundary in Boundary::ALL {
            let cells = Guard::ALL.map(|guard| text_of(Cell { guard, boundary, fault }, results));
            let _ = writeln!(text, "| {boundary} | {} |", cells.join(" | "));
        }
        text.push('\n');
    }
    text
}

fn text_of(cell: Cell, results: &[Observed]) -> String {
    let (least, most) = match expected(cell) {
        Expected::Impossible(why) => return why.letter().to_string(),
        Expected::Doubles { least, most } => (least, most),
    };
    let Some(observed) = results.iter().find(|observed| observed.cell == cell) else {
        return "–".to_owned();
    };
    let doubles = observed.verdict.double.len();
    let effects = match (observed.is_right(), least, most) {
        (false, ..) => "**wrong**".to_owned(),
        (true, 0, 0) => "1".to_owned(),
        (true, least, most) if least == most => format!("1+{doubles}"),
        (true, _, most) => format!("1+{doubles} (≤{most})"),
    };
    if observed.is_overtaken { effects + " o" } else { effects }
}

fn capitalised(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}
