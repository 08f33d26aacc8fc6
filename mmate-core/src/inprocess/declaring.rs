//! Making queues, or checking them.

use super::broker::{ConnectionId, State};
use super::queue::{Class, Queue};
use crate::transport::{Declare, Partition, QueuePlan, TransportError, TransportErrorKind};

impl State {
    /// Makes a queue as planned, or checks it.
    pub(super) fn declare(
        &mut self,
        plan: &QueuePlan,
        connection: ConnectionId,
    ) -> Result<(), TransportError> {
        let failed = |kind| TransportError::new(kind, format!("declare the queue {:?}", plan.name));
        self.check_open(connection).map_err(failed)?;
        if plan.name.is_empty() || plan.name.len() > 255 {
            let hint = "a queue's name has 1 to 255 bytes";
            return Err(failed(TransportErrorKind::Configuration).hint(hint));
        }
        if plan.declare == Declare::LeaveAlone {
            return Ok(());
        }
        if let Some(left) = plan.partition.as_ref().and_then(Partition::left_over)
            && self.queues.contains_key(&left)
        {
            let hint = "a partition above the number asked for still takes messages; let it run \
                        empty and delete it, or ask for as many as there are";
            return Err(failed(TransportErrorKind::Mismatch).hint(format!("{left}: {hint}")));
        }
        let class = Class::of(plan, connection);
        self.end_expired();
        if let Some(queue) = self.queues.get(&plan.name) {
            check_access(queue, connection).map_err(failed)?;
            let same = queue.class == class
                && queue.expires == plan.expires
                && queue.max_priority == plan.max_priority;
            if plan.declare == Declare::Create && !same {
                let hint = "use it as it is with .passive(), or give the queue another name";
                return Err(failed(TransportErrorKind::Mismatch).hint(hint));
            }
        } else if plan.declare != Declare::Create {
            return Err(failed(TransportErrorKind::NotFound));
        }
        if plan.declare == Declare::Verify {
            let dead = plan.dead_letter_queue();
            return match !plan.dead_letters || self.queues.contains_key(&dead) {
                true => Ok(()),
                false => {
                    let attempted = format!("verify the dead-letter queue {dead:?}");
                    Err(TransportError::new(TransportErrorKind::NotFound, attempted))
                }
            };
        }
        let made = || Queue::planned(class, plan);
        let queue = self.queues.entry(plan.name.clone()).or_insert_with(made);
        queue.used();
        for binding in &plan.bindings {
            queue.bind(binding);
        }
        queue.part(plan.partition.as_ref());
        self.routes.forget();
        // What is on its way may come here now.
        self.wake(&plan.name);
        if let Class::Durable(..) = class
            && plan.dead_letters
        {
            self.dead_letter_queue(&plan.name);
        }
        Ok(())
    }
}

/// Whether a connection may use a queue.
pub(super) fn check_access(
    queue: &Queue,
    connection: ConnectionId,
) -> Result<(), TransportErrorKind> {
    match queue.class {
        Class::Exclusive(owner) if owner != connection => Err(TransportErrorKind::Locked),
        Class::Exclusive(_) | Class::Durable(..) => Ok(()),
    }
}
