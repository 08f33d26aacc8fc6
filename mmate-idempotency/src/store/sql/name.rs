//! The table's name.

/// A name that no table can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} cannot be the name of a table: letters, digits and underscores can, not beginning \
     with a digit, 63 at most"
)]
#[non_exhaustive]
pub struct InvalidTableName {
    /// The name.
    pub name: String,
}

pub(crate) const DEFAULT_TABLE: &str = "processed_messages";

/// `^[A-Za-z_][A-Za-z0-9_]{0,62}$`: what stands within quotes needs no escaping.
pub(crate) fn check_name(name: &str) -> Result<(), InvalidTableName> {
    let mut bytes = name.bytes();
    let is_identifier = name.len() <= 63
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_identifier { Ok(()) } else { Err(InvalidTableName { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_name_is_an_identifier_and_nothing_else() {
        for name in ["processed_messages", "_", "A1", &"x".repeat(63)] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
        for name in ["", "1a", "a b", "a\"; DROP TABLE x; --", "a.b", "ä", &"x".repeat(64)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
