//! An envelope under another id.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::id::MessageId;

/// The envelope with another id, and everything else as it was, also what is not ours. `None` if
/// the body is no JSON object, or has no id.
pub(crate) fn with_id(body: &[u8], id: &MessageId) -> Option<Bytes> {
    let Fields(fields) = serde_json::from_slice(body).ok()?;
    let is_id = |key: &str| key.eq_ignore_ascii_case("id");
    if !fields.iter().any(|(key, _)| is_id(key)) {
        return None;
    }
    let id = serde_json::to_string(id.as_str()).ok()?;
    let mut json = String::with_capacity(body.len() + id.len());
    for (key, value) in &fields {
        json.push(if json.is_empty() { '{' } else { ',' });
        json.push_str(&serde_json::to_string(key).ok()?);
        json.push(':');
        json.push_str(if is_id(key) { &id } else { value.get() });
    }
    json.push('}');
    Some(json.into())
}

/// The fields of an object in their order, their values as they were written.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    fields.push((key, value));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(body: &str) -> Option<String> {
        let id = MessageId::parse("new \"one\"").unwrap();
        with_id(body.as_bytes(), &id).map(|body| String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn only_the_id_of_the_envelope_is_another() {
        let body =
            r#"{"x": [1, 9007199254740993] ,"id":"old","ty\u0070e":"T","payload":{"id": 1}}"#;
        let expected =
            r#"{"x":[1, 9007199254740993],"id":"new \"one\"","type":"T","payload":{"id": 1}}"#;
        assert_eq!(renamed(body).as_deref(), Some(expected));
        assert_eq!(renamed(r#"{"ID":null}"#).as_deref(), Some(r#"{"ID":"new \"one\""}"#));
    }

    #[test]
    fn what_is_no_envelope_or_has_no_id_is_left_alone() {
        for body in ["", "7", "[1]", "{", r#"{"type":"T"}"#, "{\"id\":\"\u{1}\"}"] {
            assert_eq!(renamed(body), None, "{body}");
        }
        assert_eq!(with_id(b"{\"id\":\"\xff\"}", &MessageId::generate()), None);
    }
}
