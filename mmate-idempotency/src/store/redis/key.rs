//! The names of keys.

use crate::store::RecordKey;

/// A text that no key of a [`RedisStore`](super::RedisStore) can begin with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{prefix:?} cannot be the beginning of keys: letters, digits and any of _ - . / can, 63 at most"
)]
#[non_exhaustive]
pub struct InvalidPrefix {
    /// The text.
    pub prefix: String,
}

/// What all keys of a store begin with.
///
/// It has no colon and no brace, so where it ends is always clear, and no two prefixes share a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefix(String);

impl Prefix {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidPrefix> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
        if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPrefix { prefix: text.to_owned() })
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// `mmate:{}:9:inventory:order-4711`
    ///
    /// The length of the scope says where it ends, whatever stands in scope and id. In a cluster the
    /// empty braces mean that the whole key is hashed: nobody can choose by the ids he sends to
    /// which node all his records go.
    pub(super) fn key(&self, record: &RecordKey) -> String {
        let (scope, id) = (record.scope(), record.id());
        format!("{}:{{}}:{}:{scope}:{id}", self.0, scope.len())
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("mmate".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The only reading of a key.
    fn read(key: &str) -> Option<(&str, &str, &str)> {
        let (prefix, rest) = key.split_once(':')?;
        let (length, rest) = rest.strip_prefix("{}:")?.split_once(':')?;
        let (scope, id) = rest.split_at_checked(length.parse().ok()?)?;
        Some((prefix, scope, id.strip_prefix(':')?))
    }

    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            // What separates, in all orders.
            "[:{}0-9a]{1,12}",
            "\\PC{1,20}",
        ]
    }

    proptest! {
        /// S36: what can be read in one way only is no two records' key.
        #[test]
        fn a_key_tells_prefix_scope_and_id(
            prefix in "[A-Za-z0-9_./-]{1,63}", scope in texts(), id in texts()
        ) {
            let record = RecordKey::new(scope.as_str(), &id);
            prop_assume!(record.is_ok());
            let key = Prefix::parse(&prefix).unwrap().key(&record.unwrap());
            prop_assert_eq!(read(&key), Some((&*prefix, &*scope, &*id)));
        }

        /// S36
        #[test]
        fn two_records_never_share_a_key(one in (texts(), texts()), other in (texts(), texts())) {
            let record = |(scope, id): &(String, String)| RecordKey::new(scope.as_str(), id);
            if let (Ok(first), Ok(second)) = (record(&one), record(&other)) {
                let prefix = Prefix::default();
                prop_assert_eq!(prefix.key(&first) == prefix.key(&second), one == other);
            }
        }

        /// A cluster hashes what stands between the first brace and the next one, or all if that is
        /// nothing.
        #[test]
        fn no_id_chooses_its_node(scope in texts(), id in texts()) {
            let record = RecordKey::new(scope.as_str(), &id);
            prop_assume!(record.is_ok());
            let key = Prefix::default().key(&record.unwrap());
            let after = key.split_once('{').map(|(_, after)| after);
            let is_closed_at_once = after.is_some_and(|after| after.starts_with('}'));
            prop_assert!(is_closed_at_once);
        }
    }

    #[test]
    fn a_prefix_has_nothing_that_separates() {
        for prefix in ["mmate", "a", "team-1/orders_v2.x", &"x".repeat(63)] {
            assert!(Prefix::parse(prefix).is_ok(), "{prefix:?}");
        }
        for prefix in ["", "a:b", "a{b}", "a b", "a\r\nb", "ä", "a*", &"x".repeat(64)] {
            assert!(Prefix::parse(prefix).is_err(), "{prefix:?}");
        }
    }
}
