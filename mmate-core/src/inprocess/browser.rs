//! Looking through a queue.

use std::sync::Arc;

use async_trait::async_trait;

use super::broker::{Broker, ConnectionId, State, Tag};
use super::consumer::delivery;
use super::declaring::check_access;
use super::queue::Stored;
use crate::transport::{
    Browser, Changes, Delivery, Settle, Settled, Settlement, TransportError, TransportErrorKind,
};

pub(super) struct InProcessBrowser {
    broker: Arc<Broker>,
    connection: ConnectionId,
    opened: Opened,
    held: Vec<Tag>,
}

/// A queue as it was when it was opened.
pub(super) struct Opened {
    queue: String,
    left: usize,
    cuts: u64,
    /// Under which it holds messages, as a consumer does.
    holder: u64,
}

impl InProcessBrowser {
    pub(super) fn new(broker: Arc<Broker>, connection: ConnectionId, opened: Opened) -> Self {
        Self { broker, connection, opened, held: Vec::new() }
    }

    fn give_back(&mut self) {
        let mut state = self.broker.lock();
        for tag in self.held.drain(..) {
            state.put_back(&self.opened.queue, tag);
        }
        state.serve(&self.opened.queue);
        drop(state);
        self.broker.announce();
    }
}

#[async_trait]
impl Browser for InProcessBrowser {
    async fn next(&mut self) -> Result<Option<Delivery>, TransportError> {
        let mut state = self.broker.reach(self.connection).await;
        let Some((tag, stored)) = state.look_at_next(&mut self.opened, self.connection)? else {
            return Ok(None);
        };
        drop(state);
        self.held.push(tag);
        let shown = delivery(&self.broker, &self.opened.queue, tag, stored);
        let (broker, queue) = (Arc::clone(&self.broker), self.opened.queue.clone());
        Ok(Some(shown.map_settle(|right| Box::new(Looked { right, broker, queue, tag }))))
    }

    async fn close(mut self: Box<Self>) {
        self.give_back();
    }
}

impl Drop for InProcessBrowser {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The right to settle what was looked at.
struct Looked {
    right: Box<dyn Settle>,
    broker: Arc<Broker>,
    queue: String,
    tag: Tag,
}

#[async_trait]
impl Settle for Looked {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Settled {
        match settlement {
            // It goes back to its place when the browser is closed.
            Settlement::Requeue => Settled::Yes,
            Settlement::Move { to, changes } => {
                let Self { broker, queue, tag, .. } = *self;
                let settled = broker.lock().relocate(&queue, tag, &to, *changes);
                broker.announce();
                settled
            }
            settlement => self.right.settle(settlement).await,
        }
    }

    fn is_lost(&self) -> bool {
        self.right.is_lost()
    }
}

impl State {
    pub(super) fn open_browser(
        &mut self,
        name: &str,
        connection: ConnectionId,
    ) -> Result<Opened, TransportError> {
        let failed = |kind| TransportError::new(kind, format!("browse the queue {name:?}"));
        self.check_open(connection).map_err(failed)?;
        self.show_due_of(name);
        let queue = self.queues.get(name).ok_or_else(|| failed(TransportErrorKind::NotFound))?;
        check_access(queue, connection).map_err(failed)?;
        let left = queue.state().ready;
        Ok(Opened { queue: name.to_owned(), left, cuts: self.cuts, holder: self.number() })
    }

    /// Holds the next message, if there is one of those that were there at the beginning.
    fn look_at_next(
        &mut self,
        opened: &mut Opened,
        connection: ConnectionId,
    ) -> Result<Option<(Tag, Stored)>, TransportError> {
        let failed = |kind| TransportError::new(kind, format!("browse the queue {}", opened.queue));
        self.check_open(connection).map_err(failed)?;
        if opened.cuts != self.cuts {
            return Err(failed(TransportErrorKind::Unreachable));
        }
        let tag = self.number();
        let Some(queue) = self.queues.get_mut(&opened.queue) else {
            return Err(failed(TransportErrorKind::NotFound));
        };
        if opened.left == 0 || !queue.has_ready() {
            return Ok(None);
        }
        opened.left -= 1;
        queue.hold(tag, opened.holder, connection);
        Ok(queue.held(tag).map(|held| (tag, held.stored.clone())))
    }

    fn put_back(&mut self, queue: &str, tag: Tag) {
        if let Some(queue) = self.queues.get_mut(queue)
            && let Some(held) = queue.release(tag)
        {
            queue.put_back(held);
        }
    }

    /// Puts a copy into another queue, and then lets the original go.
    fn relocate(&mut self, from: &str, tag: Tag, to: &str, changes: Changes) -> Settled {
        let Some(held) = self.queues.get(from).and_then(|queue| queue.held(tag)) else {
            return Settled::lost("the connection that it came through is gone");
        };
        let stored = held.stored.clone();
        if let Err(reason) = self.copy_to(&stored, to, changes) {
            return Settled::lost(reason);
        }
        self.release(from, tag);
        Settled::Yes
    }

    /// Puts a copy into a queue.
    pub(super) fn copy_to(
        &mut self,
        original: &Stored,
        to: &str,
        changes: Changes,
    ) -> Result<(), String> {
        if !self.queues.contains_key(to) {
            return Err(format!("there is no queue {to}"));
        }
        let mut message = original.message.clone();
        let Changes { unset, set, message_id, body } = changes;
        for header in &unset {
            message.headers.remove(header);
        }
        for (header, value) in &set {
            message.headers.insert(header.clone(), value.clone());
        }
        if message_id.is_some() {
            message.properties.message_id = message_id;
        }
        if let Some(body) = body {
            message.body = body;
        }
        let (exchange, routing_key) = (String::new(), to.to_owned());
        let redelivered = false;
        let stored = Stored { message, exchange, routing_key, redelivered, expires_at: None };
        self.enqueue(to, stored);
        if self.faults.drop_confirm() {
            return Err("the confirmation was dropped on demand".to_owned());
        }
        Ok(())
    }
}
