//! The parts of a partitioned queue, consumed as one.

use async_trait::async_trait;
use futures_util::future::{join_all, select_all};

use crate::health::StatusCell;
use crate::transport::{Connection, Consumer, Delivery, QueuePlan, TransportError};

/// Consumes all parts of a queue, be it one; with how each of the consumers is.
pub(super) async fn consume_all(
    connection: &dyn Connection,
    mut plans: Vec<QueuePlan>,
    prefetch: u16,
) -> Result<(Box<dyn Consumer>, Vec<StatusCell>), TransportError> {
    // Who is first at a part has it. Instances that start together share them out, if each begins
    // with another one.
    let first = fastrand::usize(..plans.len().max(1));
    plans.rotate_left(first);
    let mut consumers = Vec::with_capacity(plans.len());
    for plan in &plans {
        consumers.push(connection.consume(plan, prefetch).await?);
    }
    let statuses = consumers.iter().map(|consumer| consumer.status()).collect();
    let consumer = match consumers.pop() {
        Some(only) if consumers.is_empty() => only,
        last => {
            consumers.extend(last);
            Box::new(Parts(consumers))
        }
    };
    Ok((consumer, statuses))
}

struct Parts(Vec<Box<dyn Consumer>>);

#[async_trait]
impl Consumer for Parts {
    async fn next(&mut self) -> Option<Result<Delivery, TransportError>> {
        if self.0.is_empty() {
            return None;
        }
        let (next, at, _) = select_all(self.0.iter_mut().map(|part| part.next())).await;
        // The first that has something is taken: the others shall have their turn.
        let after = (at + 1) % self.0.len();
        self.0.rotate_left(after);
        next
    }

    async fn stop(&mut self) {
        join_all(self.0.iter_mut().map(|part| part.stop())).await;
    }

    async fn leave(&mut self) {
        join_all(self.0.iter_mut().map(|part| part.leave())).await;
    }
}
