//! A pattern within one word, such as `eu-*`.

use super::sequence::{self, Element};

/// What an example shows where a pattern leaves a character or a word open.
pub(super) const FILLER: char = 'x';

/// A pattern for one word: `*` is any run of characters, `?` exactly one. It takes no empty word, as it contains at
/// least one character or `?`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Glob(Box<[Piece]>);

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Piece {
    Character(char),
    AnyOne,
    AnyRun,
}

impl Glob {
    /// Takes a word that was checked already.
    pub(super) fn new(word: &str) -> Self {
        let mut pieces: Vec<_> = word
            .chars()
            .map(|character| match character {
                '*' => Piece::AnyRun,
                '?' => Piece::AnyOne,
                other => Piece::Character(other),
            })
            .collect();
        // Two runs in a row take what one takes.
        pieces.dedup_by(|a, b| a.is_run() && b.is_run());
        Self(pieces.into())
    }

    pub(super) fn matches(&self, word: &str) -> bool {
        sequence::matches(&self.0, word.chars())
    }

    /// The shortest word it takes.
    pub(super) fn shortest(&self) -> String {
        self.0.iter().filter(|piece| !piece.is_run()).map(|piece| piece.common(piece)).collect()
    }

    /// The shortest word that both take.
    pub(super) fn shortest_common(&self, other: &Self) -> Option<String> {
        let (_, characters) = sequence::smallest_common(&self.0, &other.0)?;
        Some(characters.into_iter().map(|(left, right)| left.common(right)).collect())
    }

    /// The same, but each `*` stands for at least one character: `eu-x` reads better than `eu-`.
    pub(super) fn spelled_out(&self) -> Self {
        let pieces = self
            .0
            .iter()
            .flat_map(|&piece| piece.is_run().then_some(Piece::AnyOne).into_iter().chain([piece]));
        Self(pieces.collect())
    }
}

impl Piece {
    /// The smallest character that both take, if any is.
    fn common(&self, other: &Self) -> char {
        match (self, other) {
            (&Self::Character(character), _) | (_, &Self::Character(character)) => character,
            (Self::AnyOne | Self::AnyRun, Self::AnyOne | Self::AnyRun) => FILLER,
        }
    }
}

impl Element for Piece {
    type Symbol<'s> = char;

    fn is_run(&self) -> bool {
        *self == Self::AnyRun
    }

    fn accepts(&self, symbol: char) -> bool {
        match *self {
            Self::Character(character) => character == symbol,
            Self::AnyOne | Self::AnyRun => true,
        }
    }

    fn smallest_common(&self, other: &Self) -> Option<usize> {
        let character = self.common(other);
        (self.accepts(character) && other.accepts(character)).then_some(character.len_utf8())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortest_common(left: &str, right: &str) -> Option<String> {
        let (left, right) = (Glob::new(left), Glob::new(right));
        let shared = left.shortest_common(&right);
        assert_eq!(shared.is_some(), right.shortest_common(&left).is_some());
        if let Some(word) = &shared {
            assert!(left.matches(word) && right.matches(word), "{word}");
        }
        shared
    }

    #[test]
    fn a_star_is_any_run_of_characters_also_none() {
        let glob = Glob::new("eu-*");
        assert!(glob.matches("eu-west") && glob.matches("eu-"));
        assert!(!glob.matches("eu") && !glob.matches("us-west"));
    }

    #[test]
    fn a_question_mark_is_one_character_of_however_many_bytes() {
        let glob = Glob::new("v?");
        assert!(glob.matches("v1") && glob.matches("vé") && glob.matches("v🦀"));
        assert!(!glob.matches("v") && !glob.matches("v12"));
    }

    #[test]
    fn the_end_of_a_word_is_matched_even_if_it_occurs_earlier_too() {
        assert!(Glob::new("*ab").matches("abaab"));
        assert!(Glob::new("a*b?d").matches("abxdbcd"));
        assert!(!Glob::new("*ab").matches("aba"));
    }

    #[test]
    fn stars_in_a_row_are_one() {
        assert_eq!(Glob::new("a***b"), Glob::new("a*b"));
    }

    #[test]
    fn the_shortest_common_word_shares_what_it_can() {
        assert_eq!(shortest_common("eu-*", "*-west"), Some("eu-west".into()));
        assert_eq!(shortest_common("ab*", "*ba"), Some("aba".into()));
        assert_eq!(shortest_common("a*", "??"), Some("ax".into()));
        assert_eq!(shortest_common("?", "é*"), Some("é".into()));
        assert_eq!(shortest_common("a*", "*b?"), Some("abx".into()));
        assert_eq!(shortest_common("?é*", "*é*"), Some("xé".into()));
        assert_eq!(shortest_common("a*", "b*"), None);
        assert_eq!(shortest_common("a?", "*bc"), None);
    }

    #[test]
    fn no_glob_takes_the_empty_word() {
        for text in ["?", "*?", "?*", "a*", "*a*", "*?*"] {
            assert!(!Glob::new(text).matches(""), "{text}");
            assert!(!Glob::new(text).shortest().is_empty(), "{text}");
        }
    }
}
