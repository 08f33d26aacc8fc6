//! Mending one frame in place.

use std::str;

/// What stands for a byte that is not UTF-8.
const SUBSTITUTE: u8 = 0x1A;

/// The types of frames (AMQP 0-9-1, 4.2.3).
pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;

/// Of the class `basic`: the methods that come with a message.
pub(super) const BASIC: u16 = 60;
const RETURN: u16 = 50;
pub(super) const DELIVER: u16 = 60;
const GET_OK: u16 = 71;

/// The properties of the class `basic`, from the highest flag bit on (AMQP 0-9-1, 4.2.6.1).
const PROPERTIES: [Property; 14] = [
    Property::Text,     // content type
    Property::Text,     // content encoding
    Property::Table,    // headers
    Property::Bytes(1), // delivery mode
    Property::Bytes(1), // priority
    Property::Text,     // correlation id
    Property::Text,     // reply to
    Property::Text,     // expiration
    Property::Text,     // message id
    Property::Bytes(8), // timestamp
    Property::Text,     // type
    Property::Text,     // user id
    Property::Text,     // app id
    Property::Text,     // cluster id
];

enum Property {
    Text,
    Table,
    Bytes(usize),
}

/// So many tables and arrays may be within each other. What is deeper becomes bytes, which look the
/// same but for their type. The broker's own `x-death` has three.
const MAX_DEPTH: u8 = 64;

/// What was not as lapin can read it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mends {
    /// So many bytes that are not UTF-8 were replaced.
    pub(super) bytes: usize,
    /// So many tables and arrays were too deep.
    pub(super) too_deep: usize,
}

/// Mends the payload of a method frame or a header frame. A payload that is not as it should be is
/// left to lapin from where that shows.
pub(super) fn mend(frame_type: u8, payload: &mut [u8]) -> Mends {
    let mut cursor = Cursor { rest: payload, mends: Mends::default(), depth: 0 };
    let _ = match frame_type {
        METHOD => cursor.method(),
        HEADER => cursor.header(),
        _ => None,
    };
    cursor.mends
}

/// Mends the payload of a header frame.
#[cfg(feature = "fuzzing")]
pub(crate) fn mend_header(payload: &mut [u8]) {
    mend(HEADER, payload);
}

struct Cursor<'a> {
    rest: &'a mut [u8],
    mends: Mends,
    depth: u8,
}

impl<'a> Cursor<'a> {
    fn method(&mut self) -> Option<()> {
        if self.number()? != BASIC {
            return Some(());
        }
        match self.number()? {
            // Consumer tag, delivery tag, redelivered; exchange, routing key.
            DELIVER => {
                self.text()?;
                self.take(9)?;
            }
            // Delivery tag, redelivered; exchange, routing key.
            GET_OK => {
                self.take(9)?;
            }
            // Reply code, reply text; exchange, routing key.
            RETURN => {
                self.take(2)?;
                self.text()?;
            }
            _ => return Some(()),
        }
        self.text()?;
        self.text()
    }

    fn header(&mut self) -> Option<()> {
        // Class, weight, body size.
        self.take(12)?;
        let flags = self.number()?;
        for (bit, property) in PROPERTIES.iter().enumerate() {
            if flags & (0x8000 >> bit) == 0 {
                continue;
            }
            match property {
                Property::Text => self.text()?,
                Property::Table => self.table()?,
                Property::Bytes(count) => self.take(*count).map(drop)?,
            }
        }
        Some(())
    }

    fn table(&mut self) -> Option<()> {
        self.within_length(|table| {
            table.text()?;
            table.value()
        })
    }

    /// A value of a table or an array, by the type letters that RabbitMQ and lapin agree on.
    fn value(&mut self) -> Option<()> {
        let letter = &mut self.take(1)?[0];
        if self.depth == MAX_DEPTH && matches!(letter, b'A' | b'F') {
            *letter = b'x';
            self.mends.too_deep += 1;
        }
        let count = match letter {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'L' | b'l' | b'd' | b'T' => 8,
            b'S' | b'x' => self.long_number()?,
            b'F' => return self.table(),
            b'A' => return self.within_length(Self::value),
            _ => return None,
        };
        self.take(count).map(drop)
    }

    /// Mends entry by entry, to the end that the length before them says.
    fn within_length(&mut self, mut entry: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let length = self.long_number()?;
        let (mends, depth) = (self.mends, self.depth + 1);
        let mut inner = Cursor { rest: self.take(length)?, mends, depth };
        let mut went = Some(());
        while went.is_some() && !inner.rest.is_empty() {
            went = entry(&mut inner);
        }
        self.mends = inner.mends;
        went
    }

    /// A short string: its length in one byte, and as many bytes.
    fn text(&mut self) -> Option<()> {
        let length = self.take(1)?[0];
        let mut bytes = self.take(length.into())?;
        while let Err(error) = str::from_utf8(bytes) {
            let (_, wrong) = bytes.split_at_mut(error.valid_up_to());
            wrong[0] = SUBSTITUTE;
            self.mends.bytes += 1;
            bytes = &mut wrong[1..];
        }
        Some(())
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.take(1)?[0], self.take(1)?[0]]))
    }

    fn long_number(&mut self) -> Option<usize> {
        let bytes = self.take(4)?;
        usize::try_from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).ok()
    }

    fn take(&mut self, count: usize) -> Option<&'a mut [u8]> {
        let rest = std::mem::take(&mut self.rest);
        match rest.split_at_mut_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Some(taken)
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![u8::try_from(text.len()).unwrap()];
        bytes.extend_from_slice(text);
        bytes
    }

    fn long(bytes: &[u8]) -> Vec<u8> {
        let mut long = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        long.extend_from_slice(bytes);
        long
    }

    fn header(flags: u16, properties: &[&[u8]]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        payload.extend_from_slice(&flags.to_be_bytes());
        payload.extend_from_slice(&properties.concat());
        payload
    }

    fn mended(frame_type: u8, payload: &[u8]) -> (Vec<u8>, usize) {
        let mut payload = payload.to_vec();
        let mends = mend(frame_type, &mut payload);
        assert_eq!(mends.too_deep, 0);
        (payload, mends.bytes)
    }

    const MESSAGE_ID: u16 = 0x0080;
    const HEADERS: u16 = 0x2000;

    #[test]
    fn a_message_id_is_mended_byte_by_byte_and_keeps_its_length() {
        let broken = header(MESSAGE_ID, &[&short(b"a\xffb\xc3\xa9\xe2\x82")]);
        let expected = header(MESSAGE_ID, &[&short(b"a\x1ab\xc3\xa9\x1a\x1a")]);
        assert_eq!(mended(HEADER, &broken), (expected, 3));
    }

    #[test]
    fn names_of_headers_are_mended_also_deep_inside_and_values_never() {
        let inner = |name: &[u8]| [short(name), b"S".to_vec(), long(b"\xff")].concat();
        let deep = |name: &[u8]| {
            let array = [b"V".as_slice(), b"F", &long(&inner(name)), b"t\x01"].concat();
            let table = [short(b"list"), b"A".to_vec(), long(&array), inner(name)].concat();
            header(HEADERS | MESSAGE_ID, &[&long(&table), &short(name)])
        };
        assert_eq!(mended(HEADER, &deep(b"k\xfe")), (deep(b"k\x1a"), 3));
    }

    /// A header `k` of so many arrays within each other, of which those from a depth on are bytes.
    fn nested(levels: usize, bytes_from: usize) -> Vec<u8> {
        let mut value = Vec::new();
        for level in (1..=levels).rev() {
            let letter = if level >= bytes_from { b"x" } else { b"A" };
            value = [&letter[..], &long(&value)].concat();
        }
        header(HEADERS, &[&long(&[short(b"k"), value].concat())])
    }

    #[test]
    fn tables_and_arrays_that_are_too_deep_become_bytes() {
        // The table of the headers is the first.
        let deepest = usize::from(MAX_DEPTH);
        let as_it_was = nested(deepest - 1, usize::MAX);
        assert_eq!(mended(HEADER, &as_it_was), (as_it_was.clone(), 0));

        let mut too_deep = nested(deepest, usize::MAX);
        let mends = mend(HEADER, &mut too_deep);
        assert_eq!(mends, Mends { bytes: 0, too_deep: 1 });
        assert_eq!(too_deep, nested(deepest, deepest));
    }

    /// F2: lapin reads what is within what by recursion. Unmended, this overflows the stack.
    #[test]
    fn lapin_reads_what_was_too_deep() {
        let mut payload = Vec::new();
        for _ in 0..20_000 {
            payload = [b"A", &long(&payload)[..]].concat();
        }
        let mut payload = header(HEADERS, &[&long(&[short(b"k"), payload].concat())]);
        mend(HEADER, &mut payload);
        let (rest, properties) = lapin::protocol::basic::parse_properties(&payload[12..]).unwrap();
        assert!(rest.is_empty() && properties.headers().as_ref().unwrap().contains_key("k"));
    }

    #[test]
    fn exchange_and_routing_key_are_mended_where_a_method_has_them() {
        let deliver = |key: &[u8]| {
            [&[0, 60, 0, 60][..], &short(b"tag"), &[0; 9], &short(b"ex"), &short(key)].concat()
        };
        let get_ok = |key: &[u8]| {
            let count = [0, 0, 0, 7];
            [&[0, 60, 0, 71][..], &[0; 9], &short(b"ex"), &short(key), &count].concat()
        };
        let returned = |key: &[u8]| {
            [&[0, 60, 0, 50, 1, 56][..], &short(b"NO_ROUTE"), &short(b"ex"), &short(key)].concat()
        };
        assert_eq!(mended(METHOD, &deliver(b"a.\xff")), (deliver(b"a.\x1a"), 1));
        assert_eq!(mended(METHOD, &get_ok(b"a.\xff")), (get_ok(b"a.\x1a"), 1));
        assert_eq!(mended(METHOD, &returned(b"a.\xff")), (returned(b"a.\x1a"), 1));
    }

    #[test]
    fn other_methods_and_other_frames_are_left_alone() {
        let ack = [&[0, 60, 0, 80][..], &[0xff; 9]].concat();
        assert_eq!(mended(METHOD, &ack), (ack.clone(), 0));
        assert_eq!(mended(3, &[0xff; 20]), ([0xff; 20].to_vec(), 0));
    }

    #[test]
    fn a_frame_that_ends_too_early_or_says_nonsense_is_left_to_lapin() {
        let whole = header(HEADERS, &[&long(&[short(b"k"), b"z".to_vec(), vec![1]].concat())]);
        for end in 0..=whole.len() {
            assert_eq!(mended(HEADER, &whole[..end]), (whole[..end].to_vec(), 0));
        }
        let longer_than_there_is = header(MESSAGE_ID, &[&[9, 0xff]]);
        assert_eq!(mended(HEADER, &longer_than_there_is), (longer_than_there_is.clone(), 0));
    }
}
