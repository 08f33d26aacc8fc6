//! What can be wrong with the text of a topic or a pattern.

use std::convert::Infallible;
use std::fmt;

use thiserror::Error;

/// A text that is no [`Topic`](super::Topic). Says which text, what is wrong with it, where, and what to do.
///
/// ```
/// use mmate_core::topic::Topic;
///
/// let error = Topic::new("order..us-west").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "invalid topic \"order..us-west\": word 2, at byte 6, is empty; \
///      remove the extra dot or fill in the word",
/// );
/// ```
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("invalid topic {}: {fault}", Shortened(input))]
#[non_exhaustive]
pub struct InvalidTopic {
    input: String,
    fault: TopicFault,
}

/// A text that is no [`TopicPattern`](super::TopicPattern). Says which text, what is wrong with it, where, and what to
/// do.
///
/// ```
/// use mmate_core::topic::TopicPattern;
///
/// let error = TopicPattern::new("order.[ab].eu").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "invalid topic pattern \"order.[ab].eu\": word 2 contains '[' at byte 6; \
///      only `*` and `?` are supported inside a word",
/// );
/// ```
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("invalid topic pattern {}: {fault}", Shortened(input))]
#[non_exhaustive]
pub struct InvalidTopicPattern {
    input: String,
    fault: TopicFault,
}

/// The first thing found wrong with a text, reading from its start.
///
/// Words are counted from 1, as people do; `byte` is an offset into the text from 0, as slices are.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TopicFault {
    /// There is nothing in it.
    #[error("it is empty; give it at least one word (the pattern for every topic is `#`)")]
    Empty,

    /// It does not fit into an AMQP routing key: see [`Topic::MAX_BYTES`](super::Topic::MAX_BYTES).
    #[error("it is {bytes} bytes long; shorten it to at most 255")]
    TooLong {
        /// How long it is, in bytes.
        bytes: usize,
    },

    /// Two dots in a row, or a dot at an end. Legal for a broker, and nearly always a variable that was empty.
    #[error("word {word}, at byte {byte}, is empty; remove the extra dot or fill in the word")]
    EmptyWord {
        /// Which word, from 1.
        word: usize,
        /// Where it should be, as an offset in bytes.
        byte: usize,
    },

    /// A control character, such as a newline.
    #[error("word {word} contains the control character {character:?} at byte {byte}; remove it")]
    ControlCharacter {
        /// The character.
        character: char,
        /// Which word it is in, from 1.
        word: usize,
        /// Where it is, as an offset in bytes.
        byte: usize,
    },

    /// A dot within one of the parts of an event's topic, which would make more than three words of it.
    #[error("word {word} contains a dot at byte {byte}; each part must be exactly one word")]
    DotInWord {
        /// Which part, from 1.
        word: usize,
        /// Where the dot is, as an offset in bytes into the joined text.
        byte: usize,
    },

    /// A `*` or `#` in a topic. Not reported for patterns.
    #[error(
        "word {word} contains the wildcard '{character}' at byte {byte}; \
         name one concrete topic, or use a topic pattern to subscribe to many"
    )]
    Wildcard {
        /// The wildcard.
        character: char,
        /// Which word it is in, from 1.
        word: usize,
        /// Where it is, as an offset in bytes.
        byte: usize,
    },

    /// A `#` that shares its word with other characters. Not reported for topics.
    #[error(
        "word {word} mixes '#' with other characters at byte {byte}; \
         make `#` a word of its own, or use `*` for a part of a word"
    )]
    HashInWord {
        /// Which word it is in, from 1.
        word: usize,
        /// Where it is, as an offset in bytes.
        byte: usize,
    },

    /// A word of several stars and nothing else: elsewhere that crosses separators, here nothing but `#` does. Not
    /// reported for topics.
    #[error(
        "word {word}, at byte {byte}, is nothing but stars; \
         use `*` for exactly one word or `#` for any number of words"
    )]
    OnlyStars {
        /// Which word, from 1.
        word: usize,
        /// Where it starts, as an offset in bytes.
        byte: usize,
    },

    /// A bracket or brace, which in other kinds of pattern is a choice. Not reported for topics.
    #[error(
        "word {word} contains '{character}' at byte {byte}; \
         only `*` and `?` are supported inside a word"
    )]
    UnsupportedGlob {
        /// The character.
        character: char,
        /// Which word it is in, from 1.
        word: usize,
        /// Where it is, as an offset in bytes.
        byte: usize,
    },
}

impl InvalidTopic {
    pub(super) fn new(input: String, fault: TopicFault) -> Self {
        Self { input, fault }
    }

    /// The text as it was given, or as it was joined from its parts.
    #[must_use]
    pub fn input(&self) -> &str {
        &self.input
    }

    /// What is wrong with it, to match on.
    #[must_use]
    pub fn fault(&self) -> &TopicFault {
        &self.fault
    }
}

impl InvalidTopicPattern {
    pub(super) fn new(input: String, fault: TopicFault) -> Self {
        Self { input, fault }
    }

    /// The text as it was given, or as it was joined from its parts.
    #[must_use]
    pub fn input(&self) -> &str {
        &self.input
    }

    /// What is wrong with it, to match on.
    #[must_use]
    pub fn fault(&self) -> &TopicFault {
        &self.fault
    }
}

/// So that a function over `impl TryInto<Topic, Error: Into<InvalidTopic>>` takes a ready [`Topic`](super::Topic) too.
impl From<Infallible> for InvalidTopic {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// So that a function over `impl TryInto<TopicPattern, Error: Into<InvalidTopicPattern>>` takes a ready
/// [`TopicPattern`](super::TopicPattern) too.
impl From<Infallible> for InvalidTopicPattern {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Quotes and escapes a text, and only its beginning when it is long: it may come from anywhere and ends up in logs.
struct Shortened<'a>(&'a str);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 255;
        match self.0.char_indices().nth(SHOWN) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
        }
    }
}
