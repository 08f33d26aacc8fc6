//! What the texts of topics and patterns have in common: dots, a limit, and no traps.

use super::error::TopicFault;

/// AMQP 0-9-1 carries a routing key as a short string, whose length is one octet.
pub(super) const MAX_BYTES: usize = 255;

/// One word of a text, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) text: &'a str,
    /// Counted from 1.
    pub(super) number: usize,
    /// The offset of its first byte.
    pub(super) byte: usize,
}

/// Splits a text whose length is in order into its words, none of them checked yet.
pub(super) fn parts(text: &str) -> Result<impl Iterator<Item = Part<'_>>, TopicFault> {
    match text.len() {
        0 => return Err(TopicFault::Empty),
        1..=MAX_BYTES => {}
        bytes => return Err(TopicFault::TooLong { bytes }),
    }
    let mut byte = 0;
    Ok(text.split('.').enumerate().map(move |(index, text)| {
        let part = Part { text, number: index + 1, byte };
        byte += text.len() + 1;
        part
    }))
}

/// Joins `{entity}.{action}.{region}`; the fault, if any, is a part that is more than one word.
pub(super) fn join_event(parts: [&str; 3]) -> (String, Option<TopicFault>) {
    let mut fault = None;
    let mut byte = 0;
    for (index, part) in parts.into_iter().enumerate() {
        if let (None, Some(dot)) = (&fault, part.find('.')) {
            fault = Some(TopicFault::DotInWord { word: index + 1, byte: byte + dot });
        }
        byte += part.len() + 1;
    }
    (parts.join("."), fault)
}

impl Part<'_> {
    /// Refuses an empty word, a control character, and whatever else the caller knows to be wrong with a character.
    pub(super) fn check(
        &self,
        refuse: impl Fn(char, usize) -> Option<TopicFault>,
    ) -> Result<(), TopicFault> {
        let word = self.number;
        if self.text.is_empty() {
            return Err(TopicFault::EmptyWord { word, byte: self.byte });
        }
        for (offset, character) in self.text.char_indices() {
            let byte = self.byte + offset;
            if character.is_control() {
                return Err(TopicFault::ControlCharacter { character, word, byte });
            }
            if let Some(fault) = refuse(character, byte) {
                return Err(fault);
            }
        }
        Ok(())
    }
}
