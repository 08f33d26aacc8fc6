//! A consumer of a queue, and the settling of what it is given.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::broker::{Broker, ConsumerId, State, Tag, wait};
use super::queue::{Held, Stored};
use super::trail::{self, Trail};
use crate::transport::{Consumer, Delivery, Settle, Settled, Settlement, TransportError};

pub(super) struct InProcessConsumer {
    broker: Arc<Broker>,
    id: ConsumerId,
    queue: String,
    wake: Arc<Notify>,
}

impl InProcessConsumer {
    pub(super) fn new(broker: Arc<Broker>, id: ConsumerId, queue: &str, wake: Arc<Notify>) -> Self {
        Self { broker, id, queue: queue.to_owned(), wake }
    }

    fn end(&self) {
        self.broker.lock().unsubscribe(self.id);
        self.broker.announce();
    }

    fn delivery(&self, shown: Shown) -> Delivery {
        delivery(&self.broker, &self.queue, shown.tag, shown.stored)
    }
}

/// A message that is held under this tag, with the right to settle it.
pub(super) fn delivery(broker: &Arc<Broker>, queue: &str, tag: Tag, stored: Stored) -> Delivery {
    let trail = Trail::read(&stored);
    let settle = Right { broker: Arc::clone(broker), queue: queue.to_owned(), tag };
    let mut delivery = Delivery::new(stored.message, queue, Box::new(settle));
    delivery.exchange = trail.exchange;
    delivery.routing_key = trail.routing_key;
    delivery.failed_attempts = trail.failed_attempts;
    delivery.deferrals = trail.deferrals;
    delivery.redelivered = stored.redelivered;
    delivery
}

#[async_trait]
impl Consumer for InProcessConsumer {
    async fn next(&mut self) -> Option<Result<Delivery, TransportError>> {
        tokio::task::coop::consume_budget().await;
        loop {
            let due = match self.broker.lock().take(self.id) {
                Taken::Message(shown) => return Some(Ok(self.delivery(*shown))),
                Taken::Nothing { due } => due,
                Taken::End => return None,
            };
            wait(self.wake.notified(), due).await;
        }
    }

    async fn stop(&mut self) {
        self.end();
    }

    async fn leave(&mut self) {
        self.broker.lock().leave(self.id);
        self.broker.announce();
    }
}

impl Drop for InProcessConsumer {
    fn drop(&mut self) {
        self.end();
    }
}

/// A message on its way to a consumer.
struct Shown {
    tag: Tag,
    stored: Stored,
}

enum Taken {
    Message(Box<Shown>),
    Nothing { due: Option<Instant> },
    End,
}

/// The right to settle one delivery.
struct Right {
    broker: Arc<Broker>,
    queue: String,
    tag: Tag,
}

#[async_trait]
impl Settle for Right {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Settled {
        tokio::task::coop::consume_budget().await;
        let settled = self.broker.lock().settle(&self.queue, self.tag, settlement);
        self.broker.announce();
        settled
    }

    fn is_lost(&self) -> bool {
        let state = self.broker.lock();
        state.queues.get(&self.queue).is_none_or(|queue| queue.held(self.tag).is_none())
    }
}

impl State {
    /// What a consumer looks at next.
    fn take(&mut self, id: ConsumerId) -> Taken {
        let Some(subscriber) = self.consumers.get(&id) else { return Taken::End };
        let name = subscriber.queue.clone();
        self.show_due_of(&name);
        let Some(queue) = self.queues.get(&name) else { return Taken::End };
        let later = self.later.due_for(queue);
        let Some(subscriber) = self.consumers.get_mut(&id) else { return Taken::End };
        while let Some(tag) = subscriber.buffer.pop_front() {
            if let Some(held) = queue.held(tag) {
                return Taken::Message(Box::new(Shown { tag, stored: held.stored.clone() }));
            }
        }
        Taken::Nothing { due: queue.due().into_iter().chain(later).min() }
    }

    /// Ends a consumer. What it has not looked at goes back; the rest can still be settled.
    fn unsubscribe(&mut self, id: ConsumerId) {
        let Some(subscriber) = self.consumers.remove(&id) else { return };
        let Some(queue) = self.queues.get_mut(&subscriber.queue) else { return };
        queue.consumers.retain(|other| *other != id);
        queue.used();
        for tag in subscriber.buffer {
            if let Some(held) = queue.release(tag) {
                queue.put_back(held);
            }
        }
        self.serve(&subscriber.queue);
    }

    /// Ends a consumer, and puts back all that it has before anybody else is served.
    fn leave(&mut self, id: ConsumerId) {
        let Some(subscriber) = self.consumers.get(&id) else { return };
        if let Some(queue) = self.queues.get_mut(&subscriber.queue) {
            queue.put_back_of(id);
        }
        self.unsubscribe(id);
    }

    /// Takes a message from its consumer, for good.
    pub(super) fn release(&mut self, name: &str, tag: Tag) -> Option<Held> {
        let held = self.queues.get_mut(name)?.release(tag)?;
        if let Some(subscriber) = self.consumers.get_mut(&held.consumer) {
            subscriber.held -= 1;
        }
        Some(held)
    }

    fn settle(&mut self, name: &str, tag: Tag, settlement: Settlement) -> Settled {
        let Some(held) = self.release(name, tag) else {
            return Settled::lost("the connection that it came through is gone");
        };
        let dropped = settlement == Settlement::Ack && self.faults.drop_ack();
        let mut later = None;
        match settlement {
            Settlement::Ack if !dropped => {}
            Settlement::Ack | Settlement::Requeue => {
                if let Some(queue) = self.queues.get_mut(name) {
                    queue.put_back(held);
                }
            }
            Settlement::Retry { after, error } => {
                let mut stored = held.stored;
                trail::note_retry(&mut stored, error);
                later = Some((after, stored));
            }
            Settlement::Defer { after } => {
                let mut stored = held.stored;
                trail::note_deferral(&mut stored);
                later = Some((after, stored));
            }
            Settlement::DeadLetter { letter, attempts } => {
                let mut stored = held.stored;
                trail::note_death(&mut stored, name, letter, attempts);
                self.bury(name, stored);
            }
            Settlement::Move { to, changes } => {
                if let Err(reason) = self.copy_to(&held.stored, &to, *changes) {
                    if let Some(queue) = self.queues.get_mut(name) {
                        queue.put_back(held);
                    }
                    self.serve(name);
                    return Settled::lost(reason);
                }
            }
        }
        if let Some((after, stored)) = later {
            self.show_later(name, after, stored);
        }
        self.serve(name);
        if dropped {
            return Settled::lost("the acknowledgement was dropped on demand");
        }
        Settled::Yes
    }
}
