//! What a subscription comes to: its middleware in order, and its queues.

use std::sync::Arc;

use super::SubscriptionBuilder;
use crate::middleware::Middleware;
use crate::transport::{Declare, QueueMode, QueuePlan};

/// Middleware, outermost first.
#[derive(Default)]
pub(crate) struct Stack(pub(crate) Vec<Arc<dyn Middleware>>);

/// One middleware.
pub(crate) struct Stacked(pub(crate) Arc<dyn Middleware>);

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} middleware", self.0.len())
    }
}

impl std::fmt::Debug for Stacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a middleware")
    }
}

impl SubscriptionBuilder {
    /// All middleware, outermost first; the idempotency strategy is the innermost.
    pub(crate) fn all_middleware(&self) -> Vec<Arc<dyn Middleware>> {
        let innermost = self.idempotency.iter().map(|stacked| &stacked.0);
        self.middleware.0.iter().chain(innermost).cloned().collect()
    }

    /// The queues as the broker shall have them: one, or each of its parts.
    pub(crate) fn queue_plans(
        &self,
        service: &str,
        instance: &str,
        declare: Declare,
    ) -> Vec<QueuePlan> {
        let plan = self.queue_plan(service, instance, declare);
        let hash_by = self.order.as_ref().and_then(|order| order.hash_by().ok());
        match self.partitions.zip(hash_by) {
            Some((count, hash_by)) => plan.partitioned(count, &hash_by),
            None => vec![plan],
        }
    }

    pub(crate) fn queue_plan(&self, service: &str, instance: &str, declare: Declare) -> QueuePlan {
        let name = match self.mode {
            QueueMode::Shared => self.name.clone(),
            QueueMode::PerService => format!("{service}.{}", self.name),
            QueueMode::PerInstance => format!("{service}.{}.{instance}", self.name),
        };
        let mut plan = QueuePlan::new(name, self.mode);
        plan.kind = self.kind;
        plan.max_priority = self.max_priority;
        plan.declare = match self.mode {
            QueueMode::PerInstance => Declare::Create,
            QueueMode::Shared | QueueMode::PerService => self.declare.unwrap_or(declare),
        };
        plan.bindings.clone_from(&self.bindings);
        plan.single_active_consumer = self.single_active_consumer;
        plan
    }
}
