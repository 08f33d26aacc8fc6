//! expect: `Logging` does not suppress duplicates
//! expect: strategies are `Transactional` and `Tracked`

use mmate_core::{Context, HandlerError, Middleware, Next, Outcome, Subscription};

struct Logging;

#[async_trait::async_trait]
impl Middleware for Logging {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        next.run(context).await
    }
}

fn main() {
    let _ = Subscription::per_service("a", ["#"]).idempotent(Logging);
}
