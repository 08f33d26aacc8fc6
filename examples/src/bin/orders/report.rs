//! The table at the end.

use std::fmt::Write;

use mmate_core::{Counts, Duplicates};
use serde::Serialize;

use crate::check::Verdict;
use crate::input::Ledger;

/// The result. Its fields are the keys of `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    published: u64,
    fetched: u64,
    succeeded: u64,
    duplicates: u64,
    retried: u64,
    deferred: u64,
    dead_lettered: u64,
    conflicts: u64,
    effects: u64,
    lost: u64,
    double: u64,
}

impl Report {
    pub(crate) fn new(ledger: &Ledger, counts: &Counts, verdict: &Verdict) -> Self {
        Self {
            published: ledger.published,
            fetched: counts.fetched,
            succeeded: counts.succeeded,
            duplicates: counts.duplicates.total(),
            retried: counts.retried,
            deferred: counts.deferred,
            dead_lettered: counts.dead_lettered,
            conflicts: counts.conflicts,
            effects: verdict.effects,
            lost: verdict.lost.len() as u64,
            double: verdict.double.len() as u64,
        }
    }

    pub(crate) fn to_json(&self) -> String {
        // Numbers under plain keys are always representable.
        serde_json::to_string(self).expect("a report is representable in JSON")
    }

    pub(crate) fn to_table(&self, duplicates: &Duplicates) -> String {
        let mut table = String::new();
        for (name, number, note) in [
            ("published", self.published, "confirmed by the broker"),
            ("fetched", self.fetched, "copies taken up by the four subscriptions"),
            ("succeeded", self.succeeded, "handler runs that took effect"),
            ("duplicates", self.duplicates, "copies acknowledged without running:"),
            ("  overlap", duplicates.overlap, "another subscription of the scope had it"),
            ("  republished", duplicates.republished, "published again under the same id"),
            ("  redelivered", duplicates.redelivered, "shown again by the broker"),
            ("retried", self.retried, "failed, and tried again"),
            ("deferred", self.deferred, "held elsewhere at that moment, shown again later"),
            ("dead-lettered", self.dead_lettered, "given up, in a dead-letter queue"),
            ("conflicts", self.conflicts, "same id, other content"),
            ("effects", self.effects, "rows in the effect table"),
            ("lost", self.lost, "published, without an effect"),
            ("double", self.double, "messages with more than one effect"),
        ] {
            // Writing into a String cannot fail.
            let _ = writeln!(table, "{name:<14} {:>9}  {note}", grouped(number));
        }
        table
    }
}

/// A number with a comma before every third digit.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn every_third_digit_is_set_off() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
