//! Reading events, and publishing them.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use indicatif::ProgressBar;
use mmate_core::{CorrelationId, MessageId, Outgoing, PublishError, Publisher, error_chain};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader, stdin};

use crate::options::{Failure, Options};
use crate::shop;

/// The events that come with the example.
static SHIPPED: &[u8] = include_bytes!("../../../data/orders.jsonl");

/// How many publishes wait for their confirmation at the same time.
const IN_FLIGHT: usize = 256;

/// An event as it stands on a line.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    id: String,
    topic: String,
    #[serde(rename = "type")]
    message_type: String,
    correlation_id: Option<String>,
    payload: Box<RawValue>,
}

/// What the publisher knows: the ground truth that effects are held against.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// How many publishes were confirmed.
    pub(crate) published: u64,
    /// Lines that are no events.
    malformed: u64,
    /// Publishes that no broker confirmed.
    unconfirmed: u64,
    /// The ids that were confirmed, and whether the overlapping subscriptions take them.
    pub(crate) ids: HashMap<String, bool>,
}

/// Publishes every line that is an event; others are told with their number, and skipped.
pub(crate) async fn publish_all(
    options: &Options,
    publisher: &Publisher,
    bar: &ProgressBar,
) -> Result<Ledger, Failure> {
    let mut lines = open(options.input.as_deref()).await?;
    let mut ledger = Ledger::default();
    let mut waiting = FuturesUnordered::new();
    let mut line = Vec::new();
    let mut number = 0_u64;
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).await? == 0 {
            break;
        }
        number += 1;
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match parse(text) {
            Ok((id, topic, message)) => {
                waiting.push(async move { (number, id, topic, publisher.publish(message).await) });
            }
            Err(error) => ledger.malformed(number, &*error, bar),
        }
        if waiting.len() >= IN_FLIGHT
            && let Some(published) = waiting.next().await
        {
            ledger.enter(published, bar);
        }
    }
    while let Some(published) = waiting.next().await {
        ledger.enter(published, bar);
    }
    ledger.summarise(bar);
    Ok(ledger)
}

impl Ledger {
    fn malformed(
        &mut self,
        number: u64,
        error: &(dyn std::error::Error + 'static),
        bar: &ProgressBar,
    ) {
        self.malformed += 1;
        bar.suspend(|| eprintln!("orders: line {number} is skipped: {}", error_chain(error)));
    }

    fn summarise(&self, bar: &ProgressBar) {
        bar.suspend(|| {
            if self.malformed > 0 {
                eprintln!("orders: lines skipped: {}", self.malformed);
            }
            if self.unconfirmed > 0 {
                eprintln!("orders: events that no broker confirmed: {}", self.unconfirmed);
            }
        });
    }

    fn enter(
        &mut self,
        (number, id, topic, result): (u64, String, String, Result<MessageId, PublishError>),
        bar: &ProgressBar,
    ) {
        match result {
            Ok(_) => {
                self.published += 1;
                self.ids.insert(id, shop::overlapping_take(&topic));
                bar.inc_length(1);
                bar.inc(1);
            }
            Err(PublishError::Invalid(error)) => self.malformed(number, &error, bar),
            Err(error) => {
                self.unconfirmed += 1;
                bar.suspend(|| {
                    eprintln!("orders: line {number} was not published: {}", error_chain(&error));
                });
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<(String, String, Outgoing), Failure> {
    let Line { id, topic, message_type, correlation_id, payload } = serde_json::from_slice(line)?;
    // A topic that nobody listens to is no error in an event.
    let mut message =
        Outgoing::event(&topic, message_type, &payload).id(id.parse()?).allow_unroutable();
    if let Some(correlation_id) = correlation_id {
        message = message.correlation_id(CorrelationId::parse(correlation_id)?);
    }
    Ok((id, topic, message))
}

async fn open(input: Option<&Path>) -> Result<Box<dyn AsyncBufRead + Unpin + Send>, Failure> {
    Ok(match input {
        None => Box::new(Cursor::new(SHIPPED)),
        Some(path) if path == Path::new("-") => Box::new(BufReader::new(stdin())),
        Some(path) => {
            let file = File::open(path).await;
            Box::new(BufReader::new(
                file.map_err(|error| format!("cannot read {}: {error}", path.display()))?,
            ))
        }
    })
}
