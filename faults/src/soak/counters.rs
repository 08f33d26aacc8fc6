//! What services count, beside what happened: S47.

use std::collections::HashMap;
use std::path::Path;

use mmate_core::Counts;
use mmate_core::checker::{EndState, Event, What};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a process counted until it ended in good order; one that was killed tells nobody.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Counted {
    fetched: u64,
    accounted_for: u64,
    succeeded: u64,
    duplicates: u64,
}

impl From<Counts> for Counted {
    fn from(counts: Counts) -> Self {
        let Counts { fetched, succeeded, retried, dead_lettered, .. } = counts;
        let Counts { deferred, conflicts, unprotected, in_flight, .. } = counts;
        let duplicates = counts.duplicates.total();
        let accounted_for = succeeded
            + retried
            + dead_lettered
            + duplicates
            + deferred
            + conflicts
            + unprotected
            + in_flight;
        Self { fetched, accounted_for, succeeded, duplicates }
    }
}

impl Counted {
    pub(super) fn write(&self, journals: &Path, instance: &str) -> Result<(), Failure> {
        Ok(std::fs::write(file(journals, instance), serde_json::to_vec(self)?)?)
    }
}

fn file(journals: &Path, instance: &str) -> std::path::PathBuf {
    journals.join(format!("{instance}.counts"))
}

/// What processes noted of the same, one message at a time.
#[derive(Debug, Default)]
pub(super) struct Noted(HashMap<String, (u64, u64)>);

impl Noted {
    pub(super) fn take(&mut self, event: &Event) {
        let done = match event.what {
            What::Done => true,
            What::Suppressed => false,
            _ => return,
        };
        let (handled, suppressed) = self.0.entry(event.by.clone()).or_default();
        *(if done { handled } else { suppressed }) += 1;
    }

    /// Puts the one beside the other, for each process that ended in good order.
    pub(super) fn compare(&self, journals: &Path, mut end: EndState) -> Result<EndState, Failure> {
        let mut compared = 0;
        for entry in std::fs::read_dir(journals)? {
            let path = entry?.path();
            if path.extension().is_none_or(|ending| ending != "counts") {
                continue;
            }
            let instance = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let counted: Counted = serde_json::from_slice(&std::fs::read(&path)?)?;
            let (done, suppressed) = self.0.get(&instance).copied().unwrap_or_default();
            end = end
                .counter(format!("{instance}: fetched"), counted.fetched, counted.accounted_for)
                .counter(format!("{instance}: succeeded"), counted.succeeded, done)
                .counter(format!("{instance}: duplicates"), counted.duplicates, suppressed);
            compared += 1;
        }
        println!("{compared} processes ended in good order, and what they counted is compared");
        Ok(end)
    }
}
