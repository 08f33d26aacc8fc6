//! Copies of a delivery, to be shown later or to be kept as a dead letter.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use mmate_core::DeadLetter;
use mmate_core::message::{Headers, wire};
use mmate_core::transport::Changes;

use crate::convert;
use crate::topology::Rung;

/// A delivery as it came, so that nothing a stranger wrote into it is lost in a copy.
#[derive(Debug)]
pub(crate) struct Original {
    exchange: ShortString,
    routing_key: ShortString,
    properties: BasicProperties,
    body: Bytes,
    failed_attempts: u32,
    deferrals: u32,
}

/// The properties and the body of a copy.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

impl Original {
    pub(super) fn read(
        exchange: ShortString,
        routing_key: ShortString,
        properties: BasicProperties,
        body: Bytes,
        headers: &Headers,
    ) -> Self {
        // One that comes by the queue's name may have waited in a delay queue, and says where it
        // came from before.
        let said = |header| headers.text(header).and_then(|text| ShortString::try_new(text).ok());
        let (exchange, routing_key) = match exchange.as_str().is_empty() {
            true => match (said(wire::EXCHANGE), said(wire::ROUTING_KEY)) {
                (Some(exchange), Some(routing_key)) => (exchange, routing_key),
                _ => (exchange, routing_key),
            },
            false => (exchange, routing_key),
        };
        Self {
            exchange,
            routing_key,
            properties,
            body,
            failed_attempts: count(headers, wire::ATTEMPTS),
            deferrals: count(headers, wire::DEFERRALS),
        }
    }

    pub(super) fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    pub(super) fn routing_key(&self) -> &str {
        self.routing_key.as_str()
    }

    pub(super) fn failed_attempts(&self) -> u32 {
        self.failed_attempts
    }

    pub(super) fn deferrals(&self) -> u32 {
        self.deferrals
    }

    /// A copy that waits, after another failed attempt.
    pub(super) fn retried(&self, error: &str, after: Duration, rung: Rung, user: &str) -> Copy {
        let mut headers = self.headers();
        set_number(&mut headers, wire::ATTEMPTS, self.failed_attempts.saturating_add(1));
        set_first_failure(&mut headers);
        set_text(&mut headers, wire::ERROR, cut(error));
        self.delayed(headers, after, rung, user)
    }

    /// A copy that waits, and counts for nothing.
    pub(super) fn deferred(&self, after: Duration, rung: Rung, user: &str) -> Copy {
        let mut headers = self.headers();
        set_number(&mut headers, wire::DEFERRALS, self.deferrals.saturating_add(1));
        self.delayed(headers, after, rung, user)
    }

    /// A copy for the dead-letter queue.
    pub(super) fn dead(&self, letter: &DeadLetter, attempts: u32, queue: &str, user: &str) -> Copy {
        let mut headers = self.headers();
        set_number(&mut headers, wire::ATTEMPTS, attempts);
        set_first_failure(&mut headers);
        set_text(&mut headers, wire::DEAD_AT, &now());
        set_text(&mut headers, wire::QUEUE, queue);
        set_text(&mut headers, wire::REASON, letter.reason.as_str());
        set_text(&mut headers, wire::ERROR, cut(&letter.detail));
        self.copy(headers, None, user)
    }

    /// A copy with these changes, without what the broker wrote into the original.
    pub(super) fn moved(&self, changes: Changes, user: &str) -> Result<Copy, String> {
        let Changes { unset, set, message_id, body, .. } = changes;
        let none = FieldTable::default();
        let had = self.properties.headers().as_ref().unwrap_or(&none);
        let unset: Vec<_> = unset.iter().map(String::as_str).chain(OF_THE_BROKER).collect();
        let mut headers = without(had, &unset);
        for (name, header) in &set {
            headers.insert(convert::short("header's name", name)?, convert::value(header));
        }
        let mut copy = self.copy(headers, None, user);
        if let Some(id) = message_id {
            let id = convert::short("message id", &id)?;
            copy.properties = copy.properties.with_message_id(id);
        }
        if let Some(body) = body {
            copy.body = body;
        }
        Ok(copy)
    }

    fn delayed(&self, mut headers: FieldTable, after: Duration, rung: Rung, user: &str) -> Copy {
        // RabbitMQ drops a message that comes back, by expiring alone, to a queue that its x-death
        // header says it has died in before; as one does that an operator moved back from a
        // dead-letter queue.
        headers = without(&headers, &["x-death"]);
        self.copy(headers, Some(rung.expiration(after)), user)
    }

    fn copy(&self, headers: FieldTable, expiration: Option<String>, user: &str) -> Copy {
        let of = &self.properties;
        let mut properties = BasicProperties::default().with_headers(headers);
        macro_rules! keep {
            ($($field:ident => $with:ident),*) => {
                $(if let Some(value) = of.$field() {
                    properties = properties.$with(value.clone());
                })*
            };
        }
        keep! {
            content_type => with_content_type,
            content_encoding => with_content_encoding,
            delivery_mode => with_delivery_mode,
            priority => with_priority,
            correlation_id => with_correlation_id,
            reply_to => with_reply_to,
            message_id => with_message_id,
            timestamp => with_timestamp,
            kind => with_type,
            app_id => with_app_id,
            cluster_id => with_cluster_id
        }
        // The broker refuses messages in the name of another user than the connection's.
        if let Some(name) = of.user_id().clone().filter(|name| name.as_str() == user) {
            properties = properties.with_user_id(name);
        }
        // The sender's own expiration ended when the message was taken from its queue.
        if let Some(millis) = expiration {
            properties = properties.with_expiration(millis.into());
        }
        Copy { properties, body: self.body.clone() }
    }

    /// The headers of any copy.
    fn headers(&self) -> FieldTable {
        let none = FieldTable::default();
        let had = self.properties.headers().as_ref().unwrap_or(&none);
        // CC and BCC would send the copy to further queues. The delivery count belongs to the
        // showing of a message, and the copy has not been shown.
        let mut headers = without(had, &COPIED_BY_NOBODY);
        set_text(&mut headers, wire::EXCHANGE, self.exchange.as_str());
        set_text(&mut headers, wire::ROUTING_KEY, self.routing_key.as_str());
        headers
    }
}

const COPIED_BY_NOBODY: [&str; 3] = ["CC", "BCC", "x-delivery-count"];

/// What belongs to the life of the original: with its own x-death, a message that waits in a delay
/// queue is taken for one that goes round in circles, and dropped.
const OF_THE_BROKER: [&str; 10] = [
    "CC",
    "BCC",
    "x-delivery-count",
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
];

fn without(table: &FieldTable, names: &[&str]) -> FieldTable {
    let kept = table.inner().iter().filter(|(name, _)| !names.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone()))
        .collect::<std::collections::BTreeMap<_, _>>()
        .into()
}

fn count(headers: &Headers, name: &str) -> u32 {
    let said = headers.int(name).unwrap_or_default().max(0);
    u32::try_from(said).unwrap_or(u32::MAX)
}

fn set_number(headers: &mut FieldTable, name: &str, number: u32) {
    headers.insert(name.into(), AMQPValue::LongLongInt(number.into()));
}

fn set_text(headers: &mut FieldTable, name: &str, text: &str) {
    headers.insert(name.into(), AMQPValue::LongString(text.into()));
}

fn set_first_failure(headers: &mut FieldTable) {
    if !headers.contains_key(wire::FIRST_FAILED_AT) {
        set_text(headers, wire::FIRST_FAILED_AT, &now());
    }
}

/// RFC 3339, to the millisecond.
fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// The begin of an error's text: headers have to fit a frame, and nobody reads on.
fn cut(text: &str) -> &str {
    let end = (0..=1024.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}
