//! Messages that are published for later.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::broker::{State, after_now};
use super::queue::{Class, Place, Queue, Stored};
use crate::transport::{Destination, Publication, PublishError};

/// What goes to an exchange later. Its queues are looked up when it is due.
#[derive(Debug, Default)]
pub(super) struct Later(BTreeMap<(Instant, Place), Publication>);

impl Later {
    /// When the next message is due that would go to this queue.
    pub(super) fn due_for(&self, queue: &Queue) -> Option<Instant> {
        let mut coming = self.0.iter().filter(|(_, publication)| match &publication.destination {
            Destination::Exchange { name, topic } => {
                queue.takes(name, topic.as_str(), &publication.message)
            }
            // It waits in the queue itself.
            Destination::Queue(_) => false,
        });
        coming.next().map(|((due, _), _)| *due)
    }

    fn pop_due(&mut self, now: Instant) -> Option<Publication> {
        let first = self.0.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

impl State {
    /// Keeps a message until it is due.
    pub(super) fn keep(
        &mut self,
        publication: Publication,
        delay: Duration,
    ) -> Result<(), PublishError> {
        let due = after_now(delay);
        let places = [self.number(), self.number()];
        let to = publication.destination.to_string();
        let waking: Vec<_> = match &publication.destination {
            Destination::Queue(name) => {
                let Some(queue) = self.queues.get(name) else {
                    let none = Err(PublishError::Unroutable { destination: to });
                    return if publication.mandatory { none } else { Ok(()) };
                };
                if let Class::Exclusive(_) = queue.class {
                    return Err(PublishError::Refused { destination: to, reason: ENDS.to_owned() });
                }
                let stored = Stored {
                    message: publication.message,
                    exchange: String::new(),
                    routing_key: name.clone(),
                    redelivered: false,
                    expires_at: None,
                };
                let copies = if self.faults.duplicate() { 2 } else { 1 };
                if let Some(queue) = self.queues.get_mut(name) {
                    for place in places.into_iter().take(copies) {
                        queue.push_later(due, place, stored.clone());
                    }
                }
                vec![name.clone()]
            }
            Destination::Exchange { name, topic } => {
                let message = &publication.message;
                let takes = |queue: &Queue| queue.takes(name, topic.as_str(), message);
                let taking = self.queues.iter().filter(|(_, queue)| takes(queue));
                let taking = taking.map(|(name, _)| name.clone()).collect();
                self.later.0.insert((due, places[0]), publication);
                taking
            }
        };
        for queue in waking {
            self.wake(&queue);
        }
        Ok(())
    }

    /// Delivers what is due.
    pub(super) fn route_due(&mut self) {
        let now = Instant::now();
        while let Some(mut publication) = self.later.pop_due(now) {
            // Nobody can be told any more that nothing takes it.
            publication.mandatory = false;
            let _ = self.route(publication);
        }
    }
}

/// As RabbitMQ, whose delay queue outlives such a queue and would know no way for its messages.
const ENDS: &str = "the queue ends with its connection, so nothing can be delayed for it";
