//! One word of a pattern.

use super::error::TopicFault;
use super::glob::{FILLER, Glob};
use super::sequence::Element;
use super::text::Part;

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Word {
    /// This word.
    Literal(Box<str>),
    /// `*`: any one word.
    Star,
    /// `#`: any number of words.
    Hash,
    /// Any one word of this form.
    Glob(Glob),
}

impl Word {
    pub(super) fn parse(part: Part<'_>) -> Result<Self, TopicFault> {
        let Part { text, number: word, byte } = part;
        match text {
            "*" => return Ok(Self::Star),
            "#" => return Ok(Self::Hash),
            _ => {}
        }
        part.check(|character, byte| match character {
            '#' => Some(TopicFault::HashInWord { word, byte }),
            '[' | ']' | '{' | '}' => Some(TopicFault::UnsupportedGlob { character, word, byte }),
            _ => None,
        })?;
        if text.bytes().all(|character| character == b'*') {
            return Err(TopicFault::OnlyStars { word, byte });
        }
        Ok(if text.contains(['*', '?']) {
            Self::Glob(Glob::new(text))
        } else {
            Self::Literal(text.into())
        })
    }

    pub(super) fn is_glob(&self) -> bool {
        matches!(self, Self::Glob(_))
    }

    /// The shortest word of a topic that both take. Where both leave it open, it is filled in; `#` counts as one word
    /// here.
    pub(super) fn shortest_common(&self, other: &Self) -> Option<String> {
        match (self, other) {
            (Self::Literal(left), Self::Literal(right)) => {
                (left == right).then(|| String::from(&**left))
            }
            (Self::Literal(word), Self::Glob(glob)) | (Self::Glob(glob), Self::Literal(word)) => {
                glob.matches(word).then(|| String::from(&**word))
            }
            (Self::Glob(left), Self::Glob(right)) => left.shortest_common(right),
            (Self::Literal(word), Self::Star | Self::Hash)
            | (Self::Star | Self::Hash, Self::Literal(word)) => Some(String::from(&**word)),
            (Self::Glob(glob), Self::Star | Self::Hash)
            | (Self::Star | Self::Hash, Self::Glob(glob)) => Some(glob.shortest()),
            (Self::Star | Self::Hash, Self::Star | Self::Hash) => Some(FILLER.into()),
        }
    }

    /// A word of a topic that both take and that shows what their stars stand for, if there is such a word.
    pub(super) fn telling_common(&self, other: &Self) -> Option<String> {
        self.spelled_out().shortest_common(&other.spelled_out())
    }

    fn spelled_out(&self) -> Self {
        match self {
            Self::Glob(glob) => Self::Glob(glob.spelled_out()),
            Self::Literal(_) | Self::Star | Self::Hash => self.clone(),
        }
    }
}

impl Element for Word {
    type Symbol<'s> = &'s str;

    fn is_run(&self) -> bool {
        matches!(self, Self::Hash)
    }

    fn accepts(&self, symbol: &str) -> bool {
        match self {
            Self::Literal(word) => &**word == symbol,
            Self::Star | Self::Hash => true,
            Self::Glob(glob) => glob.matches(symbol),
        }
    }

    /// The dot that goes with each word counts.
    fn smallest_common(&self, other: &Self) -> Option<usize> {
        self.shortest_common(other).map(|word| word.len() + 1)
    }
}
