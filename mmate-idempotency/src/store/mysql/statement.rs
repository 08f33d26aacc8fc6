//! Statements with their values written into them.
//!
//! Several statements make one round trip only as text, so values are not bound but written.
//! Nothing of a value can be read as SQL: bytes and texts are written as hexadecimal literals,
//! numbers as decimal ones.

use std::fmt::Write as _;
use std::sync::Arc;

/// What can stand in a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Null,
    Number(i64),
    Bytes(&'a [u8]),
    Text(&'a str),
}

impl Value<'_> {
    fn write(self, out: &mut String) {
        match self {
            Self::Null => out.push_str("NULL"),
            Self::Number(number) => {
                write!(out, "{number}").expect("a string takes all that is written");
            }
            Self::Bytes(bytes) => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.reserve(2 * bytes.len() + 3);
                out.push_str("X'");
                for byte in bytes {
                    out.push(DIGITS[usize::from(byte >> 4)].into());
                    out.push(DIGITS[usize::from(byte & 15)].into());
                }
                out.push('\'');
            }
            Self::Text(text) => {
                out.push_str("_utf8mb4 ");
                Value::Bytes(text.as_bytes()).write(out);
            }
        }
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }
}

impl<'a> From<Option<&'a [u8]>> for Value<'a> {
    fn from(bytes: Option<&'a [u8]>) -> Self {
        bytes.map_or(Self::Null, Self::Bytes)
    }
}

/// A statement with numbered places, `?1` to `?99`, for values.
#[derive(Debug, Clone)]
pub(super) struct Statement(Arc<[Part]>);

#[derive(Debug)]
enum Part {
    Sql(Box<str>),
    /// Counted from 0.
    Place(usize),
}

impl Statement {
    pub(super) fn new(sql: &str) -> Self {
        let mut parts = Vec::new();
        let mut pieces = without_comments(sql);
        while let Some((before, after)) = pieces.split_once('?') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let number: usize = after[..digits].parse().expect("a place has a number");
            parts.push(Part::Sql(before.into()));
            parts.push(Part::Place(number.checked_sub(1).expect("places are counted from 1")));
            pieces = after[digits..].to_owned();
        }
        parts.push(Part::Sql(pieces.into()));
        Self(parts.into())
    }

    /// Adds it to a text.
    pub(super) fn write(&self, out: &mut String, values: &[Value<'_>]) {
        for part in self.0.iter() {
            match part {
                Part::Sql(sql) => out.push_str(sql),
                Part::Place(place) => values[*place].write(out),
            }
        }
    }
}

/// A statement about many keys: what stands between `{each}` and `{end}` is written for each.
#[derive(Debug, Clone)]
pub(super) struct Many {
    before: Statement,
    each: Statement,
    between: &'static str,
    after: Statement,
}

impl Many {
    pub(super) fn new(sql: &str, between: &'static str) -> Self {
        let (before, rest) = sql.split_once("{each}").expect("it says what is written for each");
        let (each, after) = rest.split_once("{end}").expect("it says where that ends");
        let [before, each, after] = [before, each, after].map(Statement::new);
        Self { before, each, between, after }
    }

    /// Adds it to a text. What is not about one key has the values of the first.
    pub(super) fn write<'v>(&self, out: &mut String, all: &[impl AsRef<[Value<'v>]>]) {
        let Some(first) = all.first() else { return };
        self.before.write(out, first.as_ref());
        for (number, values) in all.iter().enumerate() {
            out.push_str(if number == 0 { "" } else { self.between });
            self.each.write(out, values.as_ref());
        }
        self.after.write(out, first.as_ref());
    }
}

/// What goes over the wire with each call is without them.
fn without_comments(sql: &str) -> String {
    let lines = sql.lines().filter(|line| !line.starts_with("--"));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_where_their_numbers_stand() {
        let statement = Statement::new("-- Why?\nSELECT ?2, ?1,\n  ?3, ?2, ?4");
        let mut out = String::new();
        let values = [Value::Number(-7), Value::Bytes(b"a'b\0"), Value::Null, Value::Text("ü;")];
        statement.write(&mut out, &values);
        assert_eq!(out, "SELECT X'61276200', -7, NULL, X'61276200', _utf8mb4 X'c3bc3b'");
    }

    #[test]
    fn a_value_with_a_place_in_it_is_not_filled() {
        let mut out = String::new();
        Statement::new("SELECT ?1").write(&mut out, &[Value::Text("?1 {each}")]);
        assert_eq!(out, "SELECT _utf8mb4 X'3f31207b656163687d'");
    }

    #[test]
    fn what_is_for_each_is_repeated() {
        let many = Many::new("SELECT ?1 WHERE {each} x = ?2 {end} LIMIT 1", " OR ");
        let mut out = String::new();
        let values = [7, 8].map(|number| [Value::Null, Value::Number(number)]);
        many.write(&mut out, &values);
        assert_eq!(
            out.split_whitespace().collect::<Vec<_>>().join(" "),
            "SELECT NULL WHERE x = 7 OR x = 8 LIMIT 1"
        );
    }
}
