//! Frames of AMQP 0-9-1 (2.3.5), as far as a test has to tell them apart.

/// A frame, with all its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    bytes: &'a [u8],
}

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const BASIC: u16 = 60;

/// A type, a channel, a length; the payload; an end.
const BEFORE: usize = 7;
const AFTER: usize = 1;

/// What a client says before its first frame.
const GREETING: &[u8] = b"AMQP";
const GREETING_LENGTH: usize = 8;

impl<'a> Frame<'a> {
    /// The first frame of the bytes, and what comes after it. Nothing if it is not whole.
    pub(super) fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = match bytes.starts_with(GREETING) {
            true => GREETING_LENGTH,
            false => {
                let length = bytes.get(3..BEFORE)?;
                BEFORE + u32::from_be_bytes(length.try_into().ok()?) as usize + AFTER
            }
        };
        let (bytes, rest) = bytes.split_at_checked(length)?;
        Some((Self { bytes }, rest))
    }

    /// All its bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its channel.
    #[must_use]
    pub fn channel(&self) -> u16 {
        u16::from_be_bytes([self.bytes[1], self.bytes[2]])
    }

    fn is_method_of_basic(&self, method: u16) -> bool {
        let [class, number] = [BASIC.to_be_bytes(), method.to_be_bytes()];
        self.bytes[0] == METHOD && self.bytes[BEFORE..].starts_with(&[class, number].concat())
    }

    /// Whether it announces a message to a consumer.
    #[must_use]
    pub fn is_delivery(&self) -> bool {
        self.is_method_of_basic(60)
    }

    /// Whether it announces a message from a publisher.
    #[must_use]
    pub fn is_publish(&self) -> bool {
        self.is_method_of_basic(40)
    }

    /// Whether it acknowledges: a consumer a delivery, or the broker a publish.
    #[must_use]
    pub fn is_ack(&self) -> bool {
        self.is_method_of_basic(80)
    }

    /// Whether it holds a message's properties.
    #[must_use]
    pub fn is_header(&self) -> bool {
        self.bytes[0] == HEADER
    }

    /// Whether it holds a part of a message's body.
    #[must_use]
    pub fn is_body(&self) -> bool {
        self.bytes[0] == BODY
    }

    /// The frame with some of its bytes replaced by as many others, wherever they are; nothing if they are not there.
    #[must_use]
    pub fn replaced(&self, from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
        assert_eq!(from.len(), to.len(), "the frame keeps its length");
        let at = self.bytes.windows(from.len()).position(|part| part == from)?;
        let mut bytes = self.bytes.to_vec();
        bytes[at..at + to.len()].copy_from_slice(to);
        Some(bytes)
    }
}
