//! Messages as lapin has them, and as core has them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use mmate_core::message::{HeaderValue, Headers, Message, Properties};
use mmate_core::transport::Death;

/// What of a received message core has words for. Nothing a stranger wrote is an error here.
pub(crate) fn message(properties: &BasicProperties, body: Bytes) -> Message {
    let text = |property: &Option<ShortString>| property.as_ref().map(ToString::to_string);
    let mut message = Message::new(body);
    message.properties = {
        let mut ours = Properties::default();
        ours.content_type = text(properties.content_type());
        ours.message_id = text(properties.message_id());
        ours.correlation_id = text(properties.correlation_id());
        ours.message_type = text(properties.kind());
        ours.timestamp = properties.timestamp().and_then(time);
        ours.reply_to = text(properties.reply_to());
        ours.app_id = text(properties.app_id());
        ours.priority = *properties.priority();
        ours.expires_after = properties.expiration().as_ref().and_then(milliseconds);
        ours.persistent = *properties.delivery_mode() == Some(PERSISTENT);
        ours
    };
    if let Some(table) = properties.headers() {
        message.headers = headers(table);
    }
    message
}

fn headers(table: &FieldTable) -> Headers {
    let known = |(name, value)| Some((String::from(ShortString::clone(name)), header(value)?));
    table.into_iter().filter_map(known).collect()
}

/// A header's value, if core has a word for its type.
pub(crate) fn header(value: &AMQPValue) -> Option<HeaderValue> {
    Some(match value {
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => HeaderValue::Text(text.to_owned()),
            Err(_) => HeaderValue::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        },
        AMQPValue::ShortString(text) => HeaderValue::Text(text.to_string()),
        AMQPValue::ByteArray(bytes) => HeaderValue::Bytes(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::Boolean(value) => HeaderValue::Bool(*value),
        AMQPValue::ShortShortInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::ShortShortUInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::ShortInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::ShortUInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::LongInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::LongUInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::LongLongInt(n) => HeaderValue::Int(*n),
        AMQPValue::Float(x) => HeaderValue::Float((*x).into()),
        AMQPValue::Double(x) => HeaderValue::Float(*x),
        AMQPValue::DecimalValue(_)
        | AMQPValue::Timestamp(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::Void => return None,
    })
}

/// What the broker noted of a message's deaths, newest first (RabbitMQ, "Dead Letter Exchanges").
/// What is not as the broker writes it is passed over.
pub(crate) fn deaths(headers: &FieldTable) -> Vec<Death> {
    let Some(AMQPValue::FieldArray(noted)) = headers.inner().get("x-death") else {
        return Vec::new();
    };
    let of = |noted: &AMQPValue| {
        let AMQPValue::FieldTable(table) = noted else { return None };
        let text = |name| match header(table.inner().get(name)?)? {
            HeaderValue::Text(text) => Some(text),
            _ => None,
        };
        let mut death = Death::default();
        death.reason = text("reason")?;
        death.queue = text("queue")?;
        death.exchange = text("exchange").unwrap_or_default();
        if let Some(AMQPValue::FieldArray(keys)) = table.inner().get("routing-keys")
            && let Some(HeaderValue::Text(key)) = keys.as_slice().first().and_then(header)
        {
            death.routing_key = key;
        }
        if let Some(AMQPValue::Timestamp(seconds)) = table.inner().get("time") {
            death.at = time(*seconds);
        }
        Some(death)
    };
    noted.as_slice().iter().filter_map(of).collect()
}

/// The properties and headers of a message to publish.
///
/// # Errors
/// What does not fit on the wire, as a sentence.
pub(crate) fn properties(message: &Message) -> Result<BasicProperties, String> {
    let Properties {
        content_type,
        message_id,
        correlation_id,
        message_type,
        timestamp,
        reply_to,
        app_id,
        priority,
        expires_after,
        persistent,
        ..
    } = &message.properties;
    let mut made = BasicProperties::default().with_delivery_mode(if *persistent {
        PERSISTENT
    } else {
        TRANSIENT
    });
    if let Some(text) = content_type {
        made = made.with_content_type(short("content type", text)?);
    }
    if let Some(text) = message_id {
        made = made.with_message_id(short("message id", text)?);
    }
    if let Some(text) = correlation_id {
        made = made.with_correlation_id(short("correlation id", text)?);
    }
    if let Some(text) = message_type {
        made = made.with_type(short("message type", text)?);
    }
    if let Some(text) = reply_to {
        made = made.with_reply_to(short("reply address", text)?);
    }
    if let Some(text) = app_id {
        made = made.with_app_id(short("service's name", text)?);
    }
    if let Some(seconds) = timestamp.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
        made = made.with_timestamp(seconds.as_secs());
    }
    if let Some(priority) = priority {
        made = made.with_priority(*priority);
    }
    if let Some(time) = expires_after {
        // The broker takes no more than 2^32 - 1.
        let millis = time.as_nanos().div_ceil(1_000_000).min(u32::MAX.into());
        made = made.with_expiration(millis.to_string().into());
    }
    if !message.headers.is_empty() {
        let mut table = FieldTable::default();
        for (name, header) in &message.headers {
            table.insert(short("header's name", name)?, value(header));
        }
        made = made.with_headers(table);
    }
    check_headers(&made)?;
    Ok(made)
}

/// Whether the headers fit a frame, as they must.
pub(crate) fn check_headers(properties: &BasicProperties) -> Result<(), String> {
    let bytes = properties.headers().as_ref().map_or(0, size_of_table);
    match bytes <= MAX_HEADER_BYTES {
        true => Ok(()),
        false => {
            Err(format!("the headers take {bytes} bytes, {MAX_HEADER_BYTES} at most are sent"))
        }
    }
}

/// A frame has 128 KiB (`frame_max`, RabbitMQ's default); this leaves room for the properties.
const MAX_HEADER_BYTES: usize = 120 * 1024;

fn size_of_table(table: &FieldTable) -> usize {
    // A name has a length byte, a value a type byte.
    let entry = |(name, value): (&ShortString, &AMQPValue)| name.as_str().len() + 2 + size(value);
    4 + table.into_iter().map(entry).sum::<usize>()
}

fn size(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldArray(values) => {
            4 + values.as_slice().iter().map(|value| 1 + size(value)).sum::<usize>()
        }
        AMQPValue::FieldTable(table) => size_of_table(table),
    }
}

/// A header's value for the wire.
pub(crate) fn value(header: &HeaderValue) -> AMQPValue {
    match header {
        HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
        HeaderValue::Int(n) => AMQPValue::LongLongInt(*n),
        HeaderValue::Float(x) => AMQPValue::Double(*x),
        HeaderValue::Bool(value) => AMQPValue::Boolean(*value),
        HeaderValue::Bytes(bytes) => AMQPValue::ByteArray(bytes.as_ref().into()),
        // A value of a kind that core got after this was written. A text is what all can read.
        other => AMQPValue::LongString(format!("{other:?}").into()),
    }
}

/// A short string, which lapin would panic over if it is too long.
pub(crate) fn short(what: &str, text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text)
        .map_err(|_| format!("the {what} has {} bytes, 255 at most are sent", text.len()))
}

/// An expiration, which is written as text.
fn milliseconds(text: &ShortString) -> Option<Duration> {
    text.as_str().parse().ok().map(Duration::from_millis)
}

fn time(seconds: u64) -> Option<SystemTime> {
    // .NET and some others write milliseconds, or whatever; a time that is none is absent.
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The delivery modes (AMQP 0-9-1, 4.8.1).
const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;
