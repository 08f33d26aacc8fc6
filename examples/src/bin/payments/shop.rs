//! The shop, which places orders and repeats itself.

use mmate_core::{Outgoing, Publisher};
use mmate_examples::program::Failure;

use crate::order::Order;
use crate::service::PLACED;

/// Tells of so many orders; returns in how many messages.
pub(crate) async fn place(publisher: &Publisher, orders: u32) -> Result<u64, Failure> {
    let mut published = 0;
    for number in 1..=orders {
        let order = Order { order_id: format!("order-{number}"), cents: i64::from(number) * 100 };
        let id = |click: u32| format!("{}-click-{click}", order.order_id);
        let mut ids = vec![id(1)];
        // The shop was not told that the broker had it.
        if number % 3 == 0 {
            ids.push(id(1));
        }
        // The customer clicked twice.
        if number % 5 == 0 {
            ids.push(id(2));
        }
        for id in ids {
            publisher.publish(Outgoing::event(PLACED, "OrderPlaced", &order).id_text(id)).await?;
            published += 1;
        }
    }
    Ok(published)
}
