//! The message that is consumed: JSON of 256 bytes, as mmate publishes it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use mmate_core::{Envelope, MessageId};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The payload of all messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) order_id: String,
    pub(crate) sku: String,
    pub(crate) quantity: u32,
    pub(crate) cents: u64,
    pub(crate) note: String,
}

/// How long a body is, in bytes.
const BODY: usize = 256;

/// The `number`-th order.
pub(crate) fn order(number: u64) -> Order {
    Order {
        order_id: format!("order-{number}"),
        sku: "sku-4711".to_owned(),
        quantity: 3,
        cents: 129_900,
        note: String::new(),
    }
}

/// The `number`-th message of a run.
pub(crate) fn message(run: &str, number: u64) -> Result<(BasicProperties, Vec<u8>)> {
    let id = MessageId::parse(format!("{run}-{number:08}"))?;
    let mut order = order(number);
    // The same each time that it is made: another time would be another length, and so another note.
    let envelope = |order: &Order| {
        let mut envelope = Envelope::new(id.clone(), "OrderCreated", order)?;
        envelope.timestamp = Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        Ok::<_, serde_json::Error>(envelope.to_json())
    };
    let short = envelope(&order)?.len();
    order.note = "x".repeat(BODY.saturating_sub(short));
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_message_id(id.as_str().into())
        .with_type("OrderCreated".into())
        .with_app_id("bench".into())
        .with_timestamp(seconds);
    Ok((properties, envelope(&order)?.to_vec()))
}
