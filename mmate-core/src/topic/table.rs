//! Many patterns at once.

use std::collections::HashMap;

use super::glob::Glob;
use super::pattern::TopicPattern;
use super::word::Word;

/// Values under patterns, found by topics: of a thousand patterns those that match, without a look at each.
///
/// Patterns that begin with the same words share them, so a lookup goes down a tree, one level for each word of the topic.
/// It takes time linear in the number of the topic's words, for a given table: at each word no more than every place in the
/// tree is looked at once, and as a rule a handful.
///
/// ```
/// use mmate_core::topic::{TopicPattern, TopicTable};
///
/// let mut table = TopicTable::new();
/// table.insert(&TopicPattern::new("order.#")?, "audit");
/// table.insert(&TopicPattern::new("order.*.us-west")?, "west");
/// table.insert(&TopicPattern::new("order.*.eu-*")?, "europe");
/// assert_eq!(table.matches("order.created.us-west"), [&"audit", &"west"]);
/// assert!(table.matches("user.created.us-west").is_empty());
/// # Ok::<(), mmate_core::topic::InvalidTopicPattern>(())
/// ```
#[derive(Debug, Clone)]
pub struct TopicTable<V> {
    /// The first one is where all patterns begin.
    places: Vec<Place>,
    values: Vec<V>,
}

/// Where patterns are after some of their words.
#[derive(Debug, Clone, Default)]
struct Place {
    literals: HashMap<Box<str>, usize>,
    star: Option<usize>,
    globs: Vec<(Glob, usize)>,
    /// What follows a `#`.
    hash: Option<usize>,
    /// Whether it follows a `#`, and so takes any word itself.
    is_run: bool,
    /// The values of patterns that end here.
    ends: Vec<usize>,
}

impl<V> TopicTable<V> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self { places: vec![Place::default()], values: Vec::new() }
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Adds a value under a pattern, beside those that are under it already.
    pub fn insert(&mut self, pattern: &TopicPattern, value: V) {
        let place = pattern.words().iter().fold(0, |place, word| self.after(place, word));
        self.places[place].ends.push(self.values.len());
        self.values.push(value);
    }

    /// The values under all patterns that [match](TopicPattern::matches) the topic, in the order in which they were
    /// inserted.
    #[must_use]
    pub fn matches(&self, topic: &str) -> Vec<&V> {
        let mut at = Vec::with_capacity(8);
        self.arrive(0, &mut at);
        let mut next = Vec::with_capacity(8);
        // The empty key has no words.
        for word in topic.split('.').filter(|_| !topic.is_empty()) {
            next.clear();
            for place in at.drain(..) {
                self.step(place, word, &mut next);
            }
            std::mem::swap(&mut at, &mut next);
        }
        let mut found: Vec<usize> = Vec::with_capacity(at.len());
        for place in at {
            found.extend(&self.places[place].ends);
        }
        found.sort_unstable();
        found.into_iter().map(|value| &self.values[value]).collect()
    }

    /// Where a pattern is after one more word.
    fn after(&mut self, place: usize, word: &Word) -> usize {
        // Several `#` in a row take what one takes.
        if *word == Word::Hash && self.places[place].is_run {
            return place;
        }
        if let Some(known) = self.places[place].next(word) {
            return known;
        }
        let new = self.places.len();
        self.places.push(Place { is_run: *word == Word::Hash, ..Place::default() });
        let from = &mut self.places[place];
        match word {
            Word::Literal(text) => drop(from.literals.insert(text.clone(), new)),
            Word::Star => from.star = Some(new),
            Word::Hash => from.hash = Some(new),
            Word::Glob(glob) => from.globs.push((glob.clone(), new)),
        }
        new
    }

    /// A place is reached; and with it what comes after a `#` that takes nothing.
    fn arrive(&self, place: usize, at: &mut Vec<usize>) {
        if at.contains(&place) {
            return;
        }
        at.push(place);
        if let Some(hash) = self.places[place].hash {
            self.arrive(hash, at);
        }
    }

    fn step(&self, place: usize, word: &str, next: &mut Vec<usize>) {
        let from = &self.places[place];
        if from.is_run {
            self.arrive(place, next);
        }
        if let Some(literal) = from.literals.get(word) {
            self.arrive(*literal, next);
        }
        if let Some(star) = from.star {
            self.arrive(star, next);
        }
        for (_, glob) in from.globs.iter().filter(|(glob, _)| glob.matches(word)) {
            self.arrive(*glob, next);
        }
    }
}

impl Place {
    fn next(&self, word: &Word) -> Option<usize> {
        match word {
            Word::Literal(text) => self.literals.get(text).copied(),
            Word::Star => self.star,
            Word::Hash => self.hash,
            Word::Glob(glob) => {
                self.globs.iter().find(|(known, _)| known == glob).map(|(_, place)| *place)
            }
        }
    }
}

impl<V> Default for TopicTable<V> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(of: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(of), 1..=most).prop_map(|words| words.join("."))
    }

    proptest! {
        /// A table finds what a look at each pattern finds.
        #[test]
        fn it_finds_exactly_the_patterns_that_match(
            patterns in prop::collection::vec(words(&["a", "b", "ab", "*", "#", "a*", "?", "*b"], 6), 0..40),
            topics in prop::collection::vec(words(&["a", "b", "ab", "c", ""], 7), 1..20),
        ) {
            let patterns: Vec<_> =
                patterns.into_iter().map(|text| TopicPattern::new(text).unwrap()).collect();
            let mut table = TopicTable::new();
            for (at, pattern) in patterns.iter().enumerate() {
                table.insert(pattern, at);
            }
            prop_assert_eq!(table.len(), patterns.len());
            for topic in &topics {
                let each = patterns.iter().enumerate().filter(|(_, pattern)| pattern.matches(topic));
                let expected: Vec<_> = each.map(|(at, _)| at).collect();
                let found: Vec<_> = table.matches(topic).into_iter().copied().collect();
                prop_assert_eq!(found, expected, "{}", topic);
            }
        }
    }

    #[test]
    fn the_empty_key_is_found_by_a_hash_only() {
        let mut table = TopicTable::default();
        assert!(table.is_empty());
        for text in ["#", "*", "a", "#.#", "#.*"] {
            table.insert(&TopicPattern::new(text).unwrap(), text);
        }
        assert_eq!(table.matches(""), [&"#", &"#.#"]);
    }

    #[test]
    fn patterns_with_the_same_words_share_them() {
        let mut table = TopicTable::new();
        for _ in 0..1000 {
            table.insert(&TopicPattern::new("order.*.#.eu-*").unwrap(), ());
        }
        assert_eq!((table.len(), table.places.len()), (1000, 5));
    }
}
