//! The headers by which a delayed or dead message says where it comes from and what befell it.
//! They are those of the wire format, so that a test sees what an operator would see on RabbitMQ.

use super::queue::Stored;
use crate::message::{Headers, wire};
use crate::outcome::DeadLetter;

/// The exchange that a message was published to, the routing key, and its counts.
pub(super) struct Trail {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) failed_attempts: u32,
    pub(super) deferrals: u32,
}

impl Trail {
    pub(super) fn read(stored: &Stored) -> Self {
        let headers = &stored.message.headers;
        // Only what came by the queue's name can have been delayed; elsewhere these headers are
        // somebody's copy.
        let origin = stored
            .exchange
            .is_empty()
            .then(|| headers.text(wire::EXCHANGE).zip(headers.text(wire::ROUTING_KEY)))
            .flatten();
        let (exchange, routing_key) = origin.unwrap_or((&stored.exchange, &stored.routing_key));
        Self {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            failed_attempts: count(headers, wire::ATTEMPTS),
            deferrals: count(headers, wire::DEFERRALS),
        }
    }

    fn write(self, headers: &mut Headers) {
        headers.insert(wire::EXCHANGE, self.exchange);
        headers.insert(wire::ROUTING_KEY, self.routing_key);
    }
}

/// Notes a failed attempt.
pub(super) fn note_retry(stored: &mut Stored, error: String) {
    let trail = Trail::read(stored);
    let headers = &mut stored.message.headers;
    headers.insert(wire::ATTEMPTS, trail.failed_attempts.saturating_add(1));
    note_failure(headers, error);
    trail.write(headers);
}

/// Notes a deferral.
pub(super) fn note_deferral(stored: &mut Stored) {
    let trail = Trail::read(stored);
    let headers = &mut stored.message.headers;
    headers.insert(wire::DEFERRALS, trail.deferrals.saturating_add(1));
    trail.write(headers);
}

/// Notes why a message is dead.
pub(super) fn note_death(stored: &mut Stored, queue: &str, letter: DeadLetter, attempts: u32) {
    let trail = Trail::read(stored);
    let headers = &mut stored.message.headers;
    headers.insert(wire::ATTEMPTS, attempts);
    headers.insert(wire::QUEUE, queue);
    headers.insert(wire::REASON, letter.reason.as_str());
    note_failure(headers, letter.detail);
    headers.insert(wire::DEAD_AT, now());
    trail.write(headers);
}

fn note_failure(headers: &mut Headers, error: String) {
    headers.insert(wire::ERROR, error);
    if !headers.contains(wire::FIRST_FAILED_AT) {
        headers.insert(wire::FIRST_FAILED_AT, now());
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn count(headers: &Headers, name: &str) -> u32 {
    headers.int(name).and_then(|n| n.try_into().ok()).unwrap_or(0)
}
