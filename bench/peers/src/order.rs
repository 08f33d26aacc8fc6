//! What is in the messages.

use serde::{Deserialize, Serialize};

/// The envelope, as far as it matters.
#[derive(Debug, Serialize, Deserialize)]
pub struct Event {
    pub payload: Order,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    order_id: String,
    sku: String,
    quantity: u32,
    cents: u64,
    note: String,
}
