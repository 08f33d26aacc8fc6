//! Which topics a subscription is for.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::error::{InvalidTopicPattern, TopicFault};
use super::key::Topic;
use super::overlap::Overlap;
use super::sequence;
use super::text;
use super::word::Word;

/// Which topics a subscription is for: words separated by dots, some of them left open.
///
/// `*` is exactly one word and `#` any number of words, also none, as in a RabbitMQ topic exchange. A word may also be
/// open in part: in `eu-*`, `*` is any run of characters, also none, and in `v?`, `?` is exactly one character (a
/// Unicode scalar value, of however many bytes). Neither crosses a dot. There is no way to escape these characters.
/// Upper and lower case differ.
///
/// A clone shares the text and copies nothing. Two patterns are equal if their texts are, so `*.#` and `#.*` differ,
/// though they match the same topics.
///
/// ```
/// use mmate_core::topic::TopicPattern;
///
/// let west: TopicPattern = "order.#.us-west".parse()?;
/// assert!(west.matches("order.us-west"));
/// assert!(west.matches("order.item.added.us-west"));
/// assert!(!west.matches("order.created.us-east"));
/// # Ok::<(), mmate_core::topic::InvalidTopicPattern>(())
/// ```
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicPattern {
    /// First, so that it alone decides how patterns are ordered: the words follow from it.
    text: Arc<str>,
    words: Arc<[Word]>,
}

impl TopicPattern {
    /// Checks a text and makes a pattern of it.
    ///
    /// # Errors
    /// [`InvalidTopicPattern`] if the text is empty or longer than [`Topic::MAX_BYTES`], or one of its words
    /// - is empty or contains a control character, so that no [`Topic`] could match;
    /// - contains `#` among other characters, or consists of several `*`: `*` never means more than one word, and `#`
    ///   never a part of one;
    /// - contains `[`, `]`, `{` or `}`: choices, which other kinds of pattern have, are not supported.
    ///
    /// ```
    /// use mmate_core::topic::TopicPattern;
    ///
    /// let error = TopicPattern::new("order.created#").unwrap_err();
    /// assert!(error.to_string().contains("word 2 mixes '#' with other characters at byte 13"));
    /// ```
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidTopicPattern> {
        let text = text.into();
        match parse(&text) {
            Ok(words) => Ok(Self { text: text.into(), words }),
            Err(fault) => Err(InvalidTopicPattern::new(text, fault)),
        }
    }

    /// The pattern for events, `{entity}.{action}.{region}`. Each part is one word of a pattern.
    ///
    /// # Errors
    /// [`InvalidTopicPattern`] as in [`new`](Self::new), and if a part contains a dot.
    ///
    /// ```
    /// use mmate_core::topic::TopicPattern;
    ///
    /// let created = TopicPattern::event("order", "created", "*")?;
    /// assert_eq!(created.as_str(), "order.created.*");
    /// # Ok::<(), mmate_core::topic::InvalidTopicPattern>(())
    /// ```
    pub fn event(entity: &str, action: &str, region: &str) -> Result<Self, InvalidTopicPattern> {
        match text::join_event([entity, action, region]) {
            (text, None) => Self::new(text),
            (text, Some(fault)) => Err(InvalidTopicPattern::new(text, fault)),
        }
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a message with this routing key is one that was asked for.
    ///
    /// Takes any text, as others may publish with keys that are no [`Topic`]. They count as they do in RabbitMQ: the
    /// empty key has no words, so only `#` (or `#.#`, …) matches; `a..b` has three words, of which the second is empty,
    /// and `*` matches it. A word with a glob matches no empty word.
    ///
    /// Allocates nothing. The time is linear in the length of the key for a given pattern: each word of the pattern is
    /// compared at most once with each word of the key, and within a word with a glob each character at most once with
    /// each character. So it takes no more than key × pattern steps, of which the pattern has at most 255.
    ///
    /// ```
    /// use mmate_core::topic::TopicPattern;
    ///
    /// let pattern = TopicPattern::new("order.*.eu-*")?;
    /// assert!(pattern.matches("order.created.eu-west"));
    /// assert!(!pattern.matches("order.created.eu-west.urgent"));
    /// # Ok::<(), mmate_core::topic::InvalidTopicPattern>(())
    /// ```
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        if topic.is_empty() {
            return sequence::matches(&self.words, std::iter::empty());
        }
        sequence::matches(&self.words, topic.split('.'))
    }

    /// The key to bind a queue with on a broker that knows `*` and `#` only: each word with a glob becomes `*`.
    ///
    /// It matches all that the pattern matches, and possibly more: see [`needs_filter`](Self::needs_filter).
    ///
    /// ```
    /// use mmate_core::topic::TopicPattern;
    ///
    /// assert_eq!(TopicPattern::new("order.*.eu-*")?.binding_key(), "order.*.*");
    /// # Ok::<(), mmate_core::topic::InvalidTopicPattern>(())
    /// ```
    #[must_use]
    pub fn binding_key(&self) -> Cow<'_, str> {
        if !self.needs_filter() {
            return Cow::Borrowed(&self.text);
        }
        let words = self.text.split('.').zip(self.words.iter());
        let bound: Vec<_> =
            words.map(|(text, word)| if word.is_glob() { "*" } else { text }).collect();
        Cow::Owned(bound.join("."))
    }

    /// Whether the pattern contains a glob, so that its [`binding_key`](Self::binding_key) lets more messages through
    /// than were asked for, and [`matches`](Self::matches) must be asked again about each that arrives.
    ///
    /// ```
    /// use mmate_core::topic::TopicPattern;
    ///
    /// assert!(TopicPattern::new("order.*.eu-*")?.needs_filter());
    /// assert!(!TopicPattern::new("order.*.#")?.needs_filter());
    /// # Ok::<(), mmate_core::topic::InvalidTopicPattern>(())
    /// ```
    #[must_use]
    pub fn needs_filter(&self) -> bool {
        self.words.iter().any(Word::is_glob)
    }

    /// Whether some topic matches both patterns.
    ///
    /// The answer is exact: it is `true` if and only if there is a [`Topic`] (no empty words, at most
    /// [`Topic::MAX_BYTES`] bytes) for which [`matches`](Self::matches) is `true` of both. Each pattern overlaps with
    /// itself. The limit counts: two patterns whose shortest common text is longer than a topic can be do not overlap.
    /// Keys that are no topics change nothing but at that limit: where a pattern takes an empty word, it takes others
    /// too.
    ///
    /// Takes time and memory of at most the product of the two lengths.
    ///
    /// ```
    /// use mmate_core::topic::TopicPattern;
    ///
    /// let europe = TopicPattern::new("order.*.eu-*")?;
    /// assert!(europe.overlaps(&TopicPattern::new("#.*-west")?));
    /// assert!(!europe.overlaps(&TopicPattern::new("#.us-*")?));
    /// # Ok::<(), mmate_core::topic::InvalidTopicPattern>(())
    /// ```
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        Overlap::of(&self.words, &other.words).is_some()
    }

    /// A topic that matches both patterns, to show to people; `None` exactly if they do not
    /// [overlap](Self::overlaps).
    ///
    /// It is the shortest there is, but for an `x` where a glob's `*` would stand for nothing: `eu-x` tells more than
    /// `eu-`. What both patterns leave open is an `x` too.
    ///
    /// ```
    /// use mmate_core::topic::{Topic, TopicPattern};
    ///
    /// let orders = TopicPattern::new("order.*.*")?;
    /// let created = TopicPattern::new("*.created.*")?;
    /// assert_eq!(orders.overlap_example(&created), Some(Topic::new("order.created.x")?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn overlap_example(&self, other: &Self) -> Option<Topic> {
        Overlap::of(&self.words, &other.words).map(Overlap::example)
    }
}

impl TopicPattern {
    pub(super) fn words(&self) -> &[Word] {
        &self.words
    }
}

fn parse(text: &str) -> Result<Arc<[Word]>, TopicFault> {
    text::parts(text)?.map(Word::parse).collect()
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TopicPattern").field(&self.text).finish()
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl FromStr for TopicPattern {
    type Err = InvalidTopicPattern;

    fn from_str(text: &str) -> Result<Self, InvalidTopicPattern> {
        Self::new(text)
    }
}

impl TryFrom<&str> for TopicPattern {
    type Error = InvalidTopicPattern;

    fn try_from(text: &str) -> Result<Self, InvalidTopicPattern> {
        Self::new(text)
    }
}

impl TryFrom<String> for TopicPattern {
    type Error = InvalidTopicPattern;

    fn try_from(text: String) -> Result<Self, InvalidTopicPattern> {
        Self::new(text)
    }
}

impl AsRef<str> for TopicPattern {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl From<TopicPattern> for String {
    fn from(pattern: TopicPattern) -> Self {
        pattern.text.as_ref().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        TopicPattern::new(text).unwrap()
    }

    fn fault(text: &str) -> TopicFault {
        TopicPattern::new(text).unwrap_err().fault().clone()
    }

    fn example(left: &str, right: &str) -> Option<String> {
        pattern(left).overlap_example(&pattern(right)).map(String::from)
    }

    #[test]
    fn a_star_is_one_word_and_a_hash_is_any_number() {
        assert!(pattern("a.*.c").matches("a.b.c"));
        assert!(!pattern("a.*.c").matches("a.c"));
        assert!(!pattern("a.*.c").matches("a.b.b.c"));
        for key in ["a.c", "a.b.c", "a.b.b.c", "a.c.c"] {
            assert!(pattern("a.#.c").matches(key), "{key}");
        }
        assert!(!pattern("a.#.c").matches("a.b"));
    }

    #[test]
    fn the_empty_key_has_no_words() {
        assert!(pattern("#").matches("") && pattern("#.#").matches(""));
        assert!(!pattern("*").matches("") && !pattern("#.*").matches(""));
    }

    #[test]
    fn an_empty_word_in_a_key_is_a_word() {
        assert!(pattern("a.*.b").matches("a..b"));
        assert!(pattern("*.*").matches("."));
        assert!(!pattern("*").matches("."));
        assert!(!pattern("a.b").matches("a..b"));
        assert!(!pattern("a.?*.b").matches("a..b"));
    }

    #[test]
    fn a_glob_does_not_cross_a_dot() {
        assert!(pattern("a*c").matches("abc"));
        assert!(!pattern("a*c").matches("a.c"));
        assert!(!pattern("a?c").matches("a.c"));
    }

    #[test]
    fn every_fault_says_where_it_is() {
        assert_eq!(fault(""), TopicFault::Empty);
        assert_eq!(fault("*.."), TopicFault::EmptyWord { word: 2, byte: 2 });
        assert_eq!(fault("a.b#"), TopicFault::HashInWord { word: 2, byte: 3 });
        assert_eq!(fault("##"), TopicFault::HashInWord { word: 1, byte: 0 });
        assert_eq!(fault("a.**"), TopicFault::OnlyStars { word: 2, byte: 2 });
        for character in ['[', ']', '{', '}'] {
            let unsupported = TopicFault::UnsupportedGlob { character, word: 2, byte: 3 };
            assert_eq!(fault(&format!("a.b{character}")), unsupported);
        }
        let control = TopicFault::ControlCharacter { character: '\0', word: 1, byte: 1 };
        assert_eq!(fault("*\0"), control);
        assert_eq!(fault(&"#.".repeat(200)), TopicFault::TooLong { bytes: 400 });
    }

    #[test]
    fn a_binding_key_without_globs_is_the_pattern_itself() {
        assert!(matches!(pattern("a.*.#").binding_key(), Cow::Borrowed("a.*.#")));
        assert_eq!(pattern("a?.#.*b*.c").binding_key(), "*.#.*.c");
    }

    #[test]
    fn an_example_is_short_and_shows_what_a_star_stands_for() {
        assert_eq!(example("order.*.*", "*.created.*").unwrap(), "order.created.x");
        assert_eq!(example("order.#", "#.us-west").unwrap(), "order.us-west");
        assert_eq!(example("order.#", "order.#").unwrap(), "order");
        assert_eq!(example("order.*.eu-*", "order.#").unwrap(), "order.x.eu-x");
        assert_eq!(example("eu-*", "*-west").unwrap(), "eu-west");
        assert_eq!(example("eu-*", "eu-").unwrap(), "eu-");
        assert_eq!(example("a.#.b.#", "#.b.#.c").unwrap(), "a.b.c");
        assert_eq!(example("*.created.#", "#.created.#").unwrap(), "x.created");
        assert_eq!(example("#.created.#", "*.created.#").unwrap(), "x.created");
        assert_eq!(example("order.created", "order.amended"), None);
        assert_eq!(example("a.*", "*.b.#.c"), None);
    }

    #[test]
    fn patterns_of_hashes_alone_share_a_topic_though_the_shortest_key_is_empty() {
        assert_eq!(example("#", "#.#").unwrap(), "x");
    }

    #[test]
    fn patterns_whose_shortest_common_text_is_too_long_do_not_overlap() {
        let (front, back) = ("a".repeat(200), "b".repeat(200));
        assert_eq!(example(&format!("{front}*"), &format!("*{back}")), None);
        assert_eq!(example(&format!("{front}.#"), &format!("#.{back}")), None);
        let (front, back) = ("a".repeat(127), "b".repeat(127));
        let shared = example(&format!("{front}.#"), &format!("#.{back}")).unwrap();
        assert_eq!(shared.len(), 255);
        assert_eq!(example(&format!("{front}a.#"), &format!("#.{back}")), None);
    }

    #[test]
    fn an_example_near_the_limit_drops_its_fillers_first() {
        let (front, back) = ("a".repeat(126), "b".repeat(126));
        let shared = example(&format!("{front}*.#"), &format!("#.{back}*")).unwrap();
        assert_eq!(shared, format!("{front}x.{back}x"));
        let (front, back) = ("a".repeat(127), "b".repeat(127));
        let shared = example(&format!("{front}*.#"), &format!("#.{back}*")).unwrap();
        assert_eq!(shared, format!("{front}.{back}"));
    }

    #[test]
    fn a_ready_pattern_goes_where_a_text_is_taken() {
        fn take<P: TryInto<TopicPattern>>(given: P) -> Result<TopicPattern, InvalidTopicPattern>
        where
            P::Error: Into<InvalidTopicPattern>,
        {
            given.try_into().map_err(Into::into)
        }
        assert_eq!(take("a.*").unwrap(), take(pattern("a.*")).unwrap());
        assert_eq!(format!("{:?}", pattern("a.*")), "TopicPattern(\"a.*\")");
    }
}
