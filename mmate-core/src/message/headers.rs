//! Headers: small named values beside a message's body.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map;

use bytes::Bytes;

/// A header's value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum HeaderValue {
    /// UTF-8 text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Bytes that are not UTF-8 text. They are not written into a JSON envelope.
    Bytes(Bytes),
}

impl HeaderValue {
    /// The text, if the value is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if the value is a whole number, or a text that is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// What a key is made of, for ordering and for recognising duplicates: the text, or a whole
    /// number as text. Nothing else is exact enough.
    #[must_use]
    pub fn as_key(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Int(n) => Some(Cow::Owned(n.to_string())),
            _ => None,
        }
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for HeaderValue {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<u32> for HeaderValue {
    fn from(n: u32) -> Self {
        Self::Int(n.into())
    }
}

impl From<bool> for HeaderValue {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl From<f64> for HeaderValue {
    fn from(x: f64) -> Self {
        Self::Float(x)
    }
}

/// Header names and values, sorted by name. Names are compared exactly.
///
/// ```
/// use mmate_core::Headers;
/// let mut headers = Headers::new();
/// headers.insert("tenant", "acme");
/// headers.insert("priority", 5_i64);
/// assert_eq!(headers.text("tenant"), Some("acme"));
/// assert_eq!(headers.int("priority"), Some(5));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Headers(BTreeMap<String, HeaderValue>);

impl Headers {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a header, and returns the value it had before.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        value: impl Into<HeaderValue>,
    ) -> Option<HeaderValue> {
        self.0.insert(name.into(), value.into())
    }

    /// Takes a header out.
    pub fn remove(&mut self, name: &str) -> Option<HeaderValue> {
        self.0.remove(name)
    }

    /// A header's value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&HeaderValue> {
        self.0.get(name)
    }

    /// A header's value if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(HeaderValue::as_text)
    }

    /// A header's value if it is a whole number.
    #[must_use]
    pub fn int(&self, name: &str) -> Option<i64> {
        self.value(name).and_then(HeaderValue::as_int)
    }

    /// Whether there is such a header.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// How many headers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All headers, by name.
    pub fn iter(&self) -> btree_map::Iter<'_, String, HeaderValue> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = (&'a String, &'a HeaderValue);
    type IntoIter = btree_map::Iter<'a, String, HeaderValue>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<N: Into<String>, V: Into<HeaderValue>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        Self(headers.into_iter().map(|(n, v)| (n.into(), v.into())).collect())
    }
}
