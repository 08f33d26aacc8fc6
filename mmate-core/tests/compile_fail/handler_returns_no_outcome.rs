//! expect: is not a handler
//! expect: which returns `Result<(), HandlerError>`, `Result<Reply<T>, HandlerError>`

use mmate_core::{HandlerError, Subscription};

async fn handle() -> Result<u32, HandlerError> {
    Ok(7)
}

fn main() {
    let _ = Subscription::per_service("a", ["#"]).handler(handle);
}
