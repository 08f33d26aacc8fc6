//! expect: use of moved value: `delivery`

use mmate_core::transport::{Delivery, Settlement};

async fn settle(delivery: Delivery) {
    let _ = delivery.settle(Settlement::Ack).await;
    let _ = delivery.settle(Settlement::Ack).await;
}

fn main() {}
