//! The result page: Markdown for people, JSON for programs, and the plot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mmate_core::checker::Verdict;
use serde::Serialize;

use super::plan::Plan;
use super::plot;
use super::run::beside;
use super::samples::Sample;
use super::timeline::Fault;
use crate::nemesis::Nemesis;

/// What a soak's page tells.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    pub(super) command: &'a str,
    pub(super) plan: &'a Plan,
    pub(super) verdict: &'a Verdict,
    /// It was stopped and resumed between them.
    pub(super) parts: u32,
    pub(super) faults: &'a [Fault],
    pub(super) samples: &'a [Sample],
    /// How many consumer processes were started.
    pub(super) starts: u64,
}

impl Report<'_> {
    /// Writes it into this folder, and returns where the page is.
    pub(super) fn write(&self, folder: &Path) -> std::io::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let name = self.plan.name.as_str();
        let page = beside(folder, name, "md");
        std::fs::write(&page, self.markdown())?;
        std::fs::write(beside(folder, name, "json"), serde_json::to_vec_pretty(self)?)?;
        std::fs::write(beside(folder, name, "svg"), plot::draw(self.samples, self.faults))?;
        Ok(page)
    }

    /// Whether messages are left.
    pub(super) fn is_stopped_early(&self) -> bool {
        self.verdict.confirmed < self.plan.messages
    }

    fn markdown(&self) -> String {
        let Verdict { confirmed, effects, recovered, poison, faults, explained, .. } = self.verdict;
        let name = self.plan.name.as_str();
        let mut text = format!("# Soak `{name}`\n\n    {}\n\n", self.command);
        let verdict = match self.verdict.is_clean() {
            true => "Everything was as promised.",
            false => "**Not everything was as promised.**",
        };
        let stopped = match self.is_stopped_early() {
            true => format!(
                " It was stopped before all {} messages were published.",
                self.plan.messages
            ),
            false => String::new(),
        };
        let parts = match self.parts {
            1 => String::new(),
            parts => format!(" and {parts} parts"),
        };
        let seconds = self.samples.last().map_or(0.0, |sample| sample.at);
        let _ = write!(
            text,
            "{verdict}{stopped} In {seconds:.0} s{parts} {confirmed} messages (N) were confirmed and {duplicates} of them published once \
             more (D), {poison} of them poison; {faults} faults (F) were injected into {processes} consumers and their \
             servers, and {starts} consumer processes started. There were {effects} effects, {recovered} of them of \
             messages whose publisher was not told that the broker has them.\n\n\
             ![Effects over time]({name}.svg)\n\n",
            duplicates = self.verdict.duplicates(),
            processes = self.plan.processes,
            starts = self.starts,
        );
        text.push_str("| set | messages |\n|---|---|\n");
        for (set, of) in self.verdict.sets() {
            let _ = writeln!(text, "| {set} | {} |", of.len());
        }
        let _ = writeln!(
            text,
            "| doubles explained by a crash between effect and record | {} |",
            explained.len()
        );
        let _ = writeln!(text, "| stuck | {} |", self.verdict.stuck.len());
        let _ = writeln!(text, "| queues not empty | {} |", self.verdict.queues.len());
        let _ = write!(
            text,
            "\nWith 95 % confidence, fewer than 3/N = {:.1e} of messages and 3/F = {:.1e} of faults fail.\n\n",
            self.verdict.bound_per_message(),
            self.verdict.bound_per_fault()
        );
        self.recovery(&mut text);
        text
    }

    /// How long it took until effects flowed again, by kind of fault.
    fn recovery(&self, text: &mut String) {
        text.push_str(
            "Recovery is the time from the end of the fault until 20 more effects are there, at the rate at which \
             messages were published; faults that come close together share it.\n\n\
             | fault | times | it lasted, median | recovery, median | recovery, longest |\n|---|---|---|---|---|\n",
        );
        let mut kinds: BTreeMap<Nemesis, Vec<&Fault>> = BTreeMap::new();
        for fault in self.faults {
            kinds.entry(fault.nemesis).or_default().push(fault);
        }
        for (nemesis, faults) in kinds {
            let lasted = sorted(faults.iter().map(|fault| fault.lasted));
            let recovered = sorted(faults.iter().filter_map(|fault| fault.recovered_in));
            let _ = writeln!(
                text,
                "| {nemesis} | {} | {:.2} s | {:.2} s | {:.2} s |",
                faults.len(),
                median(&lasted),
                median(&recovered),
                recovered.last().copied().unwrap_or_default()
            );
        }
    }
}

fn sorted(times: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut times: Vec<_> = times.collect();
    times.sort_by(f64::total_cmp);
    times
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
