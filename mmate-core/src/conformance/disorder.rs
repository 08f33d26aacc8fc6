//! Finding out whether effects came in order.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

/// Two effects of one key that came in the wrong order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disorder<K> {
    /// The key.
    pub key: K,
    /// The number that came first…
    pub before: u64,
    /// …and the smaller one that came after it, for the first time.
    pub after: u64,
}

impl<K: fmt::Debug> fmt::Display for Disorder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, before, after } = self;
        write!(f, "of the key {key:?}, {after} came after {before}")
    }
}

/// The places in a list of effects, each a key and a number that rises in the order of publishing,
/// where order was broken. A number that comes again is no new effect: a message may be shown
/// twice, and whether it then takes effect twice is another question.
///
/// ```
/// use mmate_core::conformance::disorder;
/// assert_eq!(disorder(&[("a", 1), ("b", 7), ("a", 2), ("a", 1)]), []);
/// let broken = disorder(&[("a", 1), ("a", 3), ("a", 2)]);
/// assert_eq!(broken[0].to_string(), r#"of the key "a", 2 came after 3"#);
/// ```
#[must_use]
pub fn disorder<K: Clone + Eq + Hash>(effects: &[(K, u64)]) -> Vec<Disorder<K>> {
    let mut seen: HashMap<&K, (u64, Vec<u64>)> = HashMap::new();
    let mut broken = Vec::new();
    for (key, number) in effects {
        let (highest, numbers) = seen.entry(key).or_default();
        if numbers.contains(number) {
            continue;
        }
        if !numbers.is_empty() && *number < *highest {
            broken.push(Disorder { key: key.clone(), before: *highest, after: *number });
        }
        *highest = (*highest).max(*number);
        numbers.push(*number);
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rises_is_in_order_whatever_the_other_keys_do() {
        assert_eq!(disorder(&[("a", 5), ("b", 1), ("a", 6), ("b", 2), ("b", 9)]), []);
        assert_eq!(disorder::<&str>(&[]), []);
    }

    #[test]
    fn a_repetition_is_no_disorder() {
        assert_eq!(disorder(&[("a", 1), ("a", 2), ("a", 1), ("a", 2), ("a", 3)]), []);
    }

    #[test]
    fn one_that_was_overtaken_is_found_with_what_overtook_it() {
        let broken = disorder(&[("a", 0), ("b", 0), ("a", 2), ("b", 1), ("a", 1), ("a", 3)]);
        assert_eq!(broken, [Disorder { key: "a", before: 2, after: 1 }]);
    }

    #[test]
    fn every_one_that_was_overtaken_is_found() {
        assert_eq!(disorder(&[("a", 9), ("a", 1), ("a", 2)]).len(), 2);
    }
}
