//! What became of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::event::{Event, What};

/// What became of everything that was published. The sets hold ids, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// How many messages were to be published.
    pub attempted: u64,
    /// How many the broker took responsibility for.
    pub confirmed: u64,
    /// How often the broker took responsibility, for duplicates too.
    pub published: u64,
    /// How many effects there are.
    pub effects: u64,
    /// How many messages had an effect though their publisher was not told that the broker has
    /// them.
    pub recovered: u64,
    /// How many messages no handling can help.
    pub poison: u64,
    /// How many messages are dead letters.
    pub parked: u64,
    /// How many faults there were.
    pub faults: u64,
    /// Confirmed, without an effect, and no dead letter.
    pub lost: Vec<String>,
    /// With more than one effect, which nothing excuses.
    pub double: Vec<String>,
    /// With more than one effect, as is promised for a crash between effect and record.
    pub explained: Vec<String>,
    /// With an effect or a dead letter, and never published.
    pub unexpected: Vec<String>,
    /// Dead letters that could have been handled.
    pub innocents: Vec<String>,
    /// What no handling can help, and is no dead letter.
    pub unparked: Vec<String>,
    /// Skipped as a duplicate of what never took effect.
    pub wrongly_suppressed: Vec<String>,
    /// Noted for good by more than one handling: one of them had lost its claim.
    pub noted_twice: Vec<String>,
    /// With an effect after that of a later message of their key.
    pub disorder: Vec<String>,
    /// What is left in progress, in words.
    pub stuck: Vec<String>,
    /// Queues that are not empty.
    pub queues: Vec<(String, u64)>,
    /// Counters that do not tell the truth: name, what they say, what is true.
    pub counters: Vec<(String, u64, u64)>,
}

impl Verdict {
    /// Whether everything is as promised.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.sets().iter().all(|(_, set)| set.is_empty())
            && self.stuck.is_empty()
            && self.queues.is_empty()
            && self.counters.is_empty()
    }

    /// The highest rate of failures among messages that a clean verdict leaves possible, with 95 %
    /// confidence: 3/N, the rule of three.
    #[must_use]
    pub fn bound_per_message(&self) -> f64 {
        bound(self.confirmed)
    }

    /// The same among faults: 3/F.
    #[must_use]
    pub fn bound_per_fault(&self) -> f64 {
        bound(self.faults)
    }

    /// How many of those published were duplicates.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.published.saturating_sub(self.confirmed)
    }

    /// The sets of what must not be, by name.
    #[must_use]
    pub fn sets(&self) -> [(&'static str, &[String]); 8] {
        [
            ("lost", &self.lost),
            ("double", &self.double),
            ("unexpected", &self.unexpected),
            ("innocents parked", &self.innocents),
            ("poison not parked", &self.unparked),
            ("wrongly suppressed", &self.wrongly_suppressed),
            ("noted twice", &self.noted_twice),
            ("disorder", &self.disorder),
        ]
    }

    /// What happened to each message that something is wrong with, in order of time, with the faults
    /// of the processes that had a hand in it. Of each set, `most` messages.
    #[must_use]
    pub fn convict<'e>(
        &self,
        most: usize,
        events: impl IntoIterator<Item = &'e Event>,
    ) -> BTreeMap<String, Vec<Event>> {
        let wrong = self.sets().map(|(_, set)| set.iter().take(most));
        let mut histories: BTreeMap<String, Vec<Event>> =
            wrong.into_iter().flatten().map(|id| (id.clone(), Vec::new())).collect();
        let mut faults = Vec::new();
        for event in events {
            if event.what == What::Fault {
                faults.push(event);
            } else if let Some(history) = histories.get_mut(&event.id) {
                history.push(event.clone());
            }
        }
        for history in histories.values_mut() {
            let hands: BTreeSet<_> = history.iter().map(|event| event.by.clone()).collect();
            let of_them = faults.iter().filter(|fault| hands.contains(&fault.by));
            history.extend(of_them.map(|fault| (*fault).clone()));
            history.sort_by_key(|event| event.at);
        }
        histories
    }

    pub(super) fn sort(&mut self) {
        let Self { lost, double, explained, unexpected, innocents, unparked, .. } = self;
        for set in [lost, double, explained, unexpected, innocents, unparked] {
            set.sort();
        }
        self.wrongly_suppressed.sort();
        self.noted_twice.sort();
        self.disorder.sort();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a bound is told with two digits")]
fn bound(count: u64) -> f64 {
    3.0 / count.max(1) as f64
}

/// A table of the sets; of each, the first few.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempted, confirmed, effects, recovered, poison, parked, faults, .. } = self;
        writeln!(f, "{attempted} messages attempted, {confirmed} confirmed")?;
        writeln!(f, "{} duplicates, {faults} faults, {effects} effects", self.duplicates())?;
        writeln!(f, "{recovered} recovered, {parked} parked of {poison} poison")?;
        for (name, set) in self.sets() {
            write_set(f, name, set)?;
        }
        write_set(f, "doubles explained", &self.explained)?;
        write_set(f, "stuck", &self.stuck)?;
        let left: Vec<_> = self.queues.iter().map(|(name, n)| format!("{n} in {name}")).collect();
        write_set(f, "queues not empty", &left)?;
        let wrong = self.counters.iter();
        let wrong: Vec<_> =
            wrong.map(|(name, says, truth)| format!("{name} says {says}, not {truth}")).collect();
        write_set(f, "counters wrong", &wrong)?;
        writeln!(
            f,
            "95 % bounds: 3/N = {:.1e} of messages, 3/F = {:.1e} of faults",
            self.bound_per_message(),
            self.bound_per_fault()
        )?;
        f.write_str(if self.is_clean() { "as promised" } else { "NOT AS PROMISED" })
    }
}

fn write_set(f: &mut fmt::Formatter<'_>, name: &str, set: &[String]) -> fmt::Result {
    write!(f, "{name:<20} {}", set.len())?;
    let first: Vec<_> = set.iter().take(5).map(String::as_str).collect();
    match first.is_empty() {
        true => writeln!(f),
        false => {
            writeln!(f, ": {}{}", first.join(", "), if set.len() > 5 { ", …" } else { "" })
        }
    }
}
