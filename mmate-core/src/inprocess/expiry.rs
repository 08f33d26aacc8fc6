//! What ends by waiting, queues and messages, and the looks that notice it: nothing runs in the
//! background.

use tokio::time::Instant;

use super::broker::State;
use super::queue::{Class, Queue, QueueState};
use crate::message::Message;
use crate::transport::QueueKind;

impl State {
    /// Removes the queues that nobody has used for too long.
    pub(super) fn end_expired(&mut self) {
        let now = Instant::now();
        self.queues.retain(|_, queue| !queue.is_expired(now));
    }

    /// Takes out what has waited for too long. A quorum queue gives it to its dead-letter queue.
    pub(super) fn drop_expired(&mut self, name: &str) {
        let now = Instant::now();
        while let Some(queue) = self.queues.get_mut(name)
            && let Some(expired) = queue.pop_expired(now)
        {
            if matches!(queue.class, Class::Durable(QueueKind::Quorum, _)) {
                self.bury(name, expired);
            }
        }
    }

    pub(super) fn queue_names(&mut self) -> Vec<String> {
        self.end_expired();
        self.queues.keys().cloned().collect()
    }

    pub(super) fn queue_state(&mut self, name: &str) -> Option<QueueState> {
        self.end_expired();
        // What expires elsewhere may come here.
        for queue in self.queue_names() {
            self.drop_expired(&queue);
        }
        self.show_due_of(name);
        self.queues.get(name).map(Queue::state)
    }

    pub(super) fn messages(&mut self, name: &str) -> Vec<Message> {
        for queue in self.queue_names() {
            self.drop_expired(&queue);
        }
        self.show_due_of(name);
        self.queues.get(name).map(Queue::messages).unwrap_or_default()
    }
}
