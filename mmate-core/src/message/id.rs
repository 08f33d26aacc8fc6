//! Identifiers of messages and of the conversations they belong to.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// The longest identifier in bytes: what an AMQP short string can carry.
pub const MAX_ID_BYTES: usize = 255;

/// Why a text cannot be an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidId {
    /// The text is empty.
    #[error("an id must not be empty")]
    Empty,
    /// The text is longer than [`MAX_ID_BYTES`].
    #[error("an id has at most {MAX_ID_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The text has a control character, such as NUL or a line break.
    #[error("an id has no control characters, this one has U+{code:04X} at byte {at}")]
    Control {
        /// The character's code point.
        code: u32,
        /// Where it stands, counted in bytes from 0.
        at: usize,
    },
}

fn check(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(InvalidId::TooLong { bytes: text.len() });
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, c)) => Err(InvalidId::Control { code: c as u32, at }),
        None => Ok(()),
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a text as it is: ids are compared byte by byte, never folded or trimmed.
            ///
            /// # Errors
            /// [`InvalidId`] when it is empty, longer than [`MAX_ID_BYTES`] or has a control
            /// character.
            pub fn parse(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidId;
            fn try_from(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        /// As its text.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        /// From a text that may be an id, as [`parse`](Self::parse) takes it.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::parse(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                let mut buffer = Uuid::encode_buffer();
                Self((&*uuid.hyphenated().encode_lower(&mut buffer)).into())
            }
        }
    };
}

id_type! {
    /// Identifies one message. Two deliveries with the same id are the same message.
    ///
    /// Ours are UUIDs of version 7, in lower case; any text of 1 to 255 bytes without control
    /// characters is accepted from others.
    ///
    /// ```
    /// use mmate_core::MessageId;
    /// let ours = MessageId::generate();
    /// assert_eq!(ours.as_str().len(), 36);
    /// let theirs: MessageId = "payment/4711".parse()?;
    /// assert!("line\nbreak".parse::<MessageId>().is_err());
    /// # let _ = theirs; Ok::<(), mmate_core::InvalidId>(())
    /// ```
    MessageId
}

id_type! {
    /// Ties together all messages of one conversation. What a handler publishes carries the
    /// correlation id of what it handles.
    CorrelationId
}

impl MessageId {
    /// A new id: a UUID of version 7, so ids sort roughly by the time they were made.
    #[must_use]
    pub fn generate() -> Self {
        Uuid::now_v7().into()
    }

    /// The id of the `ordinal`-th message that is published while `self` is handled in `scope`.
    ///
    /// It is a function of its three inputs (a UUID of version 5), so a handler that runs a
    /// second time publishes the same ids again and its consumers see duplicates, not new
    /// messages.
    #[must_use]
    pub fn child(&self, scope: &str, ordinal: u64) -> Self {
        // Lengths first, so that no two different inputs give the same bytes.
        let mut name = Vec::with_capacity(self.0.len() + scope.len() + 24);
        name.extend_from_slice(&(self.0.len() as u64).to_be_bytes());
        name.extend_from_slice(self.0.as_bytes());
        name.extend_from_slice(&(scope.len() as u64).to_be_bytes());
        name.extend_from_slice(scope.as_bytes());
        name.extend_from_slice(&ordinal.to_be_bytes());
        Uuid::new_v5(&CHILD_NAMESPACE, &name).into()
    }
}

/// The namespace of [`MessageId::child`]; changing it would change the ids of retried messages.
const CHILD_NAMESPACE: Uuid = Uuid::from_u128(0x7f0e_6d5a_41c9_5c1e_9b64_1d0f_3a52_c8e7);

/// The id of the message whose handling caused another one.
pub type CausationId = MessageId;

impl From<&MessageId> for CorrelationId {
    fn from(id: &MessageId) -> Self {
        Self(Arc::clone(&id.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_without_control_characters_is_an_id_as_it_is() {
        for text in ["a", " a ", "A", "ü", "🦀", "a:b", &"x".repeat(255)] {
            assert_eq!(MessageId::parse(text).unwrap().as_str(), text);
        }
    }

    /// S36
    #[test]
    fn an_empty_an_overlong_and_a_nul_id_are_refused_with_the_reason() {
        assert_eq!(MessageId::parse(""), Err(InvalidId::Empty));
        assert_eq!(MessageId::parse("x".repeat(256)), Err(InvalidId::TooLong { bytes: 256 }));
        assert_eq!(MessageId::parse("a\0b"), Err(InvalidId::Control { code: 0, at: 1 }));
    }

    #[test]
    fn an_id_is_its_text_in_json_and_a_text_that_cannot_be_one_is_refused_with_the_reason() {
        let id = MessageId::parse("a \"quoted\" 🦀").unwrap();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, r#""a \"quoted\" 🦀""#);
        assert_eq!(serde_json::from_str::<MessageId>(&json).unwrap(), id);
        let refused = serde_json::from_str::<CorrelationId>(r#""a\u0000b""#).unwrap_err();
        assert!(refused.to_string().contains("U+0000 at byte 1"), "{refused}");
        assert!(serde_json::from_str::<MessageId>("7").is_err());
    }

    /// S28
    #[test]
    fn a_child_id_depends_on_parent_scope_and_ordinal_and_on_nothing_else() {
        let parent = MessageId::parse("a").unwrap();
        assert_eq!(parent.child("s", 0), parent.child("s", 0));
        assert_ne!(parent.child("s", 0), parent.child("s", 1));
        assert_ne!(parent.child("s", 0), parent.child("t", 0));
        assert_ne!(
            MessageId::parse("ab").unwrap().child("c", 0),
            MessageId::parse("a").unwrap().child("bc", 0)
        );
    }
}
