//! What reads a stranger's words, for tests that give it any.

use bytes::Bytes;
use lapin::BasicProperties;
use mmate_core::Message;

use crate::address::Address;
use crate::{convert, link};

/// A broker's URL: what is shown of it, or what is said to be wrong with it.
#[must_use]
pub fn address(url: &str) -> String {
    match Address::parse(url) {
        Ok(address) => format!("{address} {address:?} {:?}", address.nodes()),
        Err(error) => error,
    }
}

/// A property list as lapin gets it to read.
#[must_use]
pub fn mended(properties: &[u8]) -> Vec<u8> {
    // Class, weight, body size.
    const BEFORE: usize = 12;
    let mut payload = [&[0; BEFORE], properties].concat();
    link::mend_header(&mut payload);
    payload.split_off(BEFORE)
}

/// A message, from its properties.
#[must_use]
pub fn message(properties: &BasicProperties, body: Bytes) -> Message {
    if let Some(headers) = properties.headers() {
        let _ = convert::deaths(headers);
    }
    convert::message(properties, body)
}

/// A message's properties.
///
/// # Errors
/// What does not fit on the wire, as a sentence.
pub fn properties(message: &Message) -> Result<BasicProperties, String> {
    convert::properties(message)
}
