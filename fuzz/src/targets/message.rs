//! A delivery's properties and headers, as they come over the wire, and what they mean.

use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::protocol::basic::parse_properties;
use mmate_core::message::wire;
use mmate_core::{Message, Meta};

/// The bytes of a content header's property list (AMQP 0-9-1, 2.3.5.2), mended as a connection does, then the body.
pub(super) fn parse(input: &[u8]) -> Option<Message> {
    let mended = mmate_amqp::fuzzing::mended(input);
    let (body, properties) = parse_properties(&*mended).ok()?;
    Some(read_properties(&properties, body))
}

fn read_properties(properties: &BasicProperties, body: &[u8]) -> Message {
    mmate_amqp::fuzzing::message(properties, Bytes::copy_from_slice(body))
}

/// What can be sent on is received as it was, but for an expiration that no broker takes: it is sent as the longest.
pub(super) fn read(input: &[u8]) {
    let Some(mut message) = parse(input) else { return };
    let _ = Meta::read(&message);
    for (name, value) in &message.headers {
        let _ = (wire::is_reserved(name), value.as_key(), value.as_int(), value.as_text());
    }
    let Ok(sent) = mmate_amqp::fuzzing::properties(&message) else { return };
    let longest = Duration::from_millis(u32::MAX.into());
    let expires_after = &mut message.properties.expires_after;
    *expires_after = expires_after.map(|time| time.min(longest));
    let again = read_properties(&sent, &message.body);
    assert_eq!(format!("{again:?}"), format!("{message:?}"));
}
