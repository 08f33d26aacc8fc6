//! What was published, and whether what became of it is right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The publisher's log: the truth that the system under test is judged by.
#[derive(Debug, Default, Clone)]
pub struct Books {
    attempted: BTreeSet<String>,
    confirmed: BTreeSet<String>,
    poison: BTreeSet<String>,
}

impl Books {
    /// A message is about to be published.
    pub fn attempt(&mut self, id: &str) {
        self.attempted.insert(id.to_owned());
    }

    /// The broker has taken responsibility for it.
    pub fn confirm(&mut self, id: &str) {
        self.confirmed.insert(id.to_owned());
    }

    /// A message that cannot be handled, by the id that it will be known by as a dead letter.
    pub fn poison(&mut self, id: &str) {
        self.attempt(id);
        self.confirm(id);
        self.poison.insert(id.to_owned());
    }

    /// What was confirmed and shall have an effect.
    pub fn owed(&self) -> impl Iterator<Item = &String> {
        self.confirmed.difference(&self.poison)
    }

    /// Whether everything that was confirmed, and can have an effect, had it.
    #[must_use]
    pub fn has_all(&self, effects: &BTreeMap<String, u64>) -> bool {
        self.owed().all(|id| effects.contains_key(id))
    }

    /// Compares it with how often each message had its effect, and with the dead letters.
    #[must_use]
    pub fn judge(&self, effects: &BTreeMap<String, u64>, parked: &[String]) -> Verdict {
        let letters: BTreeSet<String> = parked.iter().cloned().collect();
        let had_none = |id: &&String| !effects.contains_key(*id) && !letters.contains(*id);
        let strange = effects.keys().chain(&letters);
        Verdict {
            attempted: self.attempted.len(),
            confirmed: self.confirmed.len(),
            effects: effects.values().sum(),
            lost: self.confirmed.iter().filter(had_none).cloned().collect(),
            double: effects.iter().filter(|(_, n)| **n > 1).map(|(id, _)| id.clone()).collect(),
            unexpected: strange.filter(|id| !self.attempted.contains(*id)).cloned().collect(),
            recovered: effects.keys().filter(|id| !self.confirmed.contains(*id)).count(),
            poison: self.poison.len(),
            letters: parked.len(),
            innocents: letters.difference(&self.poison).cloned().collect(),
            unparked: self.poison.difference(&letters).cloned().collect(),
            left: Vec::new(),
        }
    }
}

/// What became of what was published.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Verdict {
    /// How many were to be published.
    pub attempted: usize,
    /// How many the broker took responsibility for.
    pub confirmed: usize,
    /// How many effects there are.
    pub effects: u64,
    /// Confirmed, without an effect, and no dead letter.
    pub lost: Vec<String>,
    /// With more than one effect.
    pub double: Vec<String>,
    /// With an effect, or a dead letter, and never published.
    pub unexpected: Vec<String>,
    /// With an effect, though the publisher was not told that the broker has them.
    pub recovered: usize,
    /// How many could not be handled.
    pub poison: usize,
    /// How many dead letters there are.
    pub letters: usize,
    /// Dead letters that could have been handled.
    pub innocents: Vec<String>,
    /// What could not be handled, and is no dead letter.
    pub unparked: Vec<String>,
    /// Queues with messages still in them.
    pub left: Vec<(String, u32)>,
}

impl Verdict {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let Self { lost, double, unexpected, innocents, unparked, left, .. } = self;
        [lost, double, unexpected, innocents, unparked].iter().all(|set| set.is_empty())
            && left.is_empty()
    }

    /// Prints it, under the name of a fault.
    ///
    /// # Panics
    /// If anything is not as it should be.
    pub fn must_be_clean(&self, fault: &str) {
        println!("{fault}: {self}");
        assert!(self.is_clean(), "{fault}: {self:#?}");
    }
}

/// Zero failures among N messages allow, with 95 % confidence, a rate of 3/N at most.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempted, confirmed, effects, recovered, poison, letters, .. } = self;
        let (lost, double, left) = (self.lost.len(), self.double.len(), self.left.len());
        let bound = 3.0 / f64::from(u32::try_from(*confirmed.max(&1)).unwrap_or(u32::MAX));
        write!(
            f,
            "{attempted} attempted, {confirmed} confirmed, {effects} effects ({recovered} unconfirmed), lost {lost}, \
             double {double}, {letters} dead letters of {poison} poison, {left} queues not empty; \
             3/N = {bound:.4}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books() -> Books {
        let mut books = Books::default();
        for id in ["a", "b", "unconfirmed"] {
            books.attempt(id);
        }
        books.confirm("a");
        books.confirm("b");
        books.poison("p");
        books
    }

    fn judge(effects: &[(&str, u64)], parked: &[&str]) -> Verdict {
        let effects = effects.iter().map(|(id, n)| ((*id).to_owned(), *n)).collect();
        let parked: Vec<_> = parked.iter().map(|id| (*id).to_owned()).collect();
        books().judge(&effects, &parked)
    }

    #[test]
    fn each_kind_of_wrong_is_caught() {
        assert!(judge(&[("a", 1), ("b", 1)], &["p"]).is_clean());
        let also_what_was_not_confirmed = judge(&[("a", 1), ("b", 1), ("unconfirmed", 1)], &["p"]);
        assert!(also_what_was_not_confirmed.is_clean());
        assert_eq!(also_what_was_not_confirmed.recovered, 1);

        assert_eq!(judge(&[("a", 1)], &["p"]).lost, ["b"]);
        assert_eq!(judge(&[("a", 2), ("b", 1)], &["p"]).double, ["a"]);
        assert_eq!(judge(&[("a", 1), ("b", 1), ("z", 1)], &["p"]).unexpected, ["z"]);
        assert_eq!(judge(&[("a", 1)], &["p", "b"]).innocents, ["b"]);
        assert_eq!(judge(&[("a", 1), ("b", 1)], &[]).unparked, ["p"]);
        let wrong = [
            judge(&[("a", 1)], &["p"]),
            judge(&[("a", 2), ("b", 1)], &["p"]),
            judge(&[("a", 1), ("b", 1), ("z", 1)], &["p"]),
            judge(&[("a", 1)], &["p", "b"]),
            judge(&[("a", 1), ("b", 1)], &[]),
            Verdict { left: vec![("q".to_owned(), 1)], ..judge(&[("a", 1), ("b", 1)], &["p"]) },
        ];
        assert!(wrong.iter().all(|verdict| !verdict.is_clean()), "{wrong:#?}");
    }
}
