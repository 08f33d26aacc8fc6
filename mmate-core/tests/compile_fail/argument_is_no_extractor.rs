//! expect: is not a handler
//! expect: a handler is an async function whose arguments all implement `FromContext`

use mmate_core::{HandlerError, Subscription};

struct Order;

async fn handle(_order: Order) -> Result<(), HandlerError> {
    Ok(())
}

fn main() {
    let _ = Subscription::per_service("a", ["#"]).handler(handle);
}
