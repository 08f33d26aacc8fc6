//! What two patterns have in common.

use super::key::Topic;
use super::sequence;
use super::text::MAX_BYTES;
use super::word::Word;

/// The shortest topic that two patterns both match, as the pair of words that asks for each of its words.
pub(super) struct Overlap<'p> {
    words: Vec<(&'p Word, &'p Word)>,
    /// How many bytes more it could have.
    spare: usize,
}

impl<'p> Overlap<'p> {
    /// `None` if there is no topic that both match, or none that is short enough to be one.
    pub(super) fn of(left: &'p [Word], right: &'p [Word]) -> Option<Self> {
        let (size, mut words) = sequence::smallest_common(left, right)?;
        // Each word was counted with a dot, and the last has none.
        let mut spare = (MAX_BYTES + 1).checked_sub(size)?;
        if words.is_empty() {
            // Both are nothing but `#`. They share the empty key, which is no topic, and all topics.
            words.push((&Word::Star, &Word::Star));
            spare = 0;
        }
        Some(Self { words, spare })
    }

    pub(super) fn example(self) -> Topic {
        let mut spare = self.spare;
        let words: Vec<_> = self
            .words
            .into_iter()
            .filter_map(|(left, right)| {
                let shortest = left.shortest_common(right)?;
                let Some(telling) = left.telling_common(right) else { return Some(shortest) };
                match spare.checked_sub(telling.len() - shortest.len()) {
                    None => Some(shortest),
                    Some(left_over) => {
                        spare = left_over;
                        Some(telling)
                    }
                }
            })
            .collect();
        Topic::of_checked_words(&words)
    }
}
