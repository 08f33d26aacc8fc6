//! What is told between shop, service and provider.

use serde::{Deserialize, Serialize};

/// An order, as the shop tells of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) order_id: String,
    pub(crate) cents: i64,
}

/// A charge, as the provider answers and as the service tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Charge {
    /// The provider's own number of it.
    pub(crate) charge_id: String,
    pub(crate) order_id: String,
    pub(crate) cents: i64,
}
