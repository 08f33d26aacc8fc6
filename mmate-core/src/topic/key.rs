//! The concrete topic a message is published with.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::error::{InvalidTopic, TopicFault};
use super::text::{self, MAX_BYTES};

/// A concrete topic: the routing key one message is published with, such as `order.created.us-west`.
///
/// It is 1 to 255 bytes of words separated by dots. No word is empty, none contains a wildcard (`*` or `#`) or a
/// control character: a broker would take all of these and deliver such a message to nobody, or to the wrong ones.
/// (`?`, brackets and braces are ordinary characters here, though a [`TopicPattern`](super::TopicPattern) cannot spell
/// them.) Upper and lower case differ.
///
/// A clone shares the text and copies nothing.
///
/// ```
/// use mmate_core::topic::Topic;
///
/// let topic = Topic::new("order.created.us-west")?;
/// assert_eq!(topic.words().collect::<Vec<_>>(), ["order", "created", "us-west"]);
///
/// let same: Topic = "order.created.us-west".parse()?;
/// assert_eq!(topic, same);
/// # Ok::<(), mmate_core::topic::InvalidTopic>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Topic(Arc<str>);

impl Topic {
    /// The most bytes a topic can have: AMQP counts those of a routing key in one octet.
    pub const MAX_BYTES: usize = MAX_BYTES;

    /// Checks a text and makes a topic of it.
    ///
    /// # Errors
    /// [`InvalidTopic`] if the text is empty or longer than [`MAX_BYTES`](Self::MAX_BYTES) bytes, or one of its words
    /// is empty, or contains `*`, `#` or a control character.
    ///
    /// ```
    /// use mmate_core::topic::Topic;
    ///
    /// let error = Topic::new("order.*.us-west").unwrap_err();
    /// assert!(error.to_string().contains("word 2 contains the wildcard '*' at byte 6"));
    /// ```
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidTopic> {
        let text = text.into();
        match check(&text) {
            Ok(()) => Ok(Self(text.into())),
            Err(fault) => Err(InvalidTopic::new(text, fault)),
        }
    }

    /// The topic of an event, `{entity}.{action}.{region}`. Each part is exactly one word.
    ///
    /// # Errors
    /// [`InvalidTopic`] as in [`new`](Self::new), and if a part contains a dot: the words after it would no longer be
    /// where the patterns of the subscribers expect them.
    ///
    /// ```
    /// use mmate_core::topic::Topic;
    ///
    /// assert_eq!(Topic::event("order", "created", "us-west")?.as_str(), "order.created.us-west");
    /// assert!(Topic::event("order.item", "created", "us-west").is_err());
    /// # Ok::<(), mmate_core::topic::InvalidTopic>(())
    /// ```
    pub fn event(entity: &str, action: &str, region: &str) -> Result<Self, InvalidTopic> {
        match text::join_event([entity, action, region]) {
            (text, None) => Self::new(text),
            (text, Some(fault)) => Err(InvalidTopic::new(text, fault)),
        }
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The words between the dots: at least one, and none of them empty.
    ///
    /// ```
    /// use mmate_core::topic::Topic;
    ///
    /// let topic = Topic::new("order.created.us-west")?;
    /// assert_eq!(topic.words().next_back(), Some("us-west"));
    /// # Ok::<(), mmate_core::topic::InvalidTopic>(())
    /// ```
    #[must_use]
    pub fn words(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split('.')
    }

    /// A topic of words that are known to be in order, as those of a [`TopicPattern`](super::TopicPattern) are.
    pub(super) fn of_checked_words(words: &[String]) -> Self {
        let text = words.join(".");
        debug_assert_eq!(check(&text), Ok(()));
        Self(text.into())
    }
}

fn check(text: &str) -> Result<(), TopicFault> {
    for part in text::parts(text)? {
        part.check(|character, byte| {
            let word = part.number;
            matches!(character, '*' | '#').then_some(TopicFault::Wildcard { character, word, byte })
        })?;
    }
    Ok(())
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Topic {
    type Err = InvalidTopic;

    fn from_str(text: &str) -> Result<Self, InvalidTopic> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Topic {
    type Error = InvalidTopic;

    fn try_from(text: &str) -> Result<Self, InvalidTopic> {
        Self::new(text)
    }
}

impl TryFrom<String> for Topic {
    type Error = InvalidTopic;

    fn try_from(text: String) -> Result<Self, InvalidTopic> {
        Self::new(text)
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A map keyed by topics can be asked with a `&str`.
impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.0.as_ref().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> TopicFault {
        Topic::new(text).unwrap_err().fault().clone()
    }

    #[test]
    fn one_word_is_a_topic() {
        assert_eq!(Topic::new("order").unwrap().as_str(), "order");
    }

    #[test]
    fn the_limit_is_255_bytes_and_not_characters() {
        assert!(Topic::new("a".repeat(255)).is_ok());
        assert_eq!(fault(&"a".repeat(256)), TopicFault::TooLong { bytes: 256 });
        assert_eq!(fault(&"é".repeat(128)), TopicFault::TooLong { bytes: 256 });
    }

    #[test]
    fn an_empty_word_is_found_where_it_should_be() {
        assert_eq!(fault(""), TopicFault::Empty);
        assert_eq!(fault("."), TopicFault::EmptyWord { word: 1, byte: 0 });
        assert_eq!(fault(".a"), TopicFault::EmptyWord { word: 1, byte: 0 });
        assert_eq!(fault("é..b"), TopicFault::EmptyWord { word: 2, byte: 3 });
        assert_eq!(fault("a.b."), TopicFault::EmptyWord { word: 3, byte: 4 });
    }

    #[test]
    fn a_wildcard_is_refused_alone_and_among_other_characters() {
        assert_eq!(fault("a.#"), TopicFault::Wildcard { character: '#', word: 2, byte: 2 });
        assert_eq!(fault("a.é*b"), TopicFault::Wildcard { character: '*', word: 2, byte: 4 });
    }

    #[test]
    fn a_control_character_is_refused_and_shown_escaped() {
        let error = Topic::new("order.created\n").unwrap_err();
        assert_eq!(
            error.fault(),
            &TopicFault::ControlCharacter { character: '\n', word: 2, byte: 13 }
        );
        assert_eq!(
            error.to_string(),
            "invalid topic \"order.created\\n\": word 2 contains the control character '\\n' \
             at byte 13; remove it"
        );
    }

    #[test]
    fn each_part_of_an_event_is_exactly_one_word() {
        let fault = |entity, action, region| {
            Topic::event(entity, action, region).unwrap_err().fault().clone()
        };
        assert_eq!(fault("order", "", "eu"), TopicFault::EmptyWord { word: 2, byte: 6 });
        assert_eq!(fault("order", "a.b", "c.d"), TopicFault::DotInWord { word: 2, byte: 7 });
        assert_eq!(
            fault("order", "created", "*"),
            TopicFault::Wildcard { character: '*', word: 3, byte: 14 }
        );
    }

    #[test]
    fn a_long_text_is_shortened_in_the_message_only() {
        let error = Topic::new("é".repeat(100_000)).unwrap_err();
        assert_eq!(error.input().len(), 200_000);
        assert!(error.to_string().len() < 700);
    }

    #[test]
    fn a_map_of_topics_can_be_asked_with_a_text() {
        let map = std::collections::HashMap::from([(Topic::new("a.b").unwrap(), 1)]);
        assert_eq!(map.get("a.b"), Some(&1));
    }
}
