//! Redeliveries of what this process handles already.
//!
//! When a connection is lost, the broker shows everything that was unsettled again, also to the
//! process that still works on it. Such a redelivery is adopted: the handling that runs goes on,
//! and settles the new delivery in place of the lost one. One that comes when the handling has just
//! ended is acknowledged with it.

#[cfg(all(test, shuttle))]
mod explored;

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use crate::context::Context;
use crate::message::MessageId;
use crate::sync::{Mutex, MutexGuard};
use crate::transport::Delivery;

/// The deliveries that a subscription has handlers at work for.
pub(super) struct AtWork {
    lists: Mutex<Lists>,
    /// How many finished messages are remembered: as many as one lost connection can bring back.
    room: usize,
    hashes: RandomState,
}

#[derive(Default)]
struct Lists {
    next: u64,
    /// As many as handlers are at work.
    running: Vec<Running>,
    /// Handled to the end, when the delivery was lost already; oldest first.
    finished: VecDeque<Finished>,
}

struct Running {
    number: u64,
    id: Option<MessageId>,
    body: Bytes,
    delivery: Delivery,
}

struct Finished {
    id: MessageId,
    body: u64,
}

/// What becomes of a delivery.
pub(super) enum TakenUp {
    /// It is to be handled.
    New(AtHand),
    /// A handler is at work on it, and will settle it.
    Adopted,
    /// It is handled already, and to be acknowledged.
    Finished(Box<Delivery>),
}

/// A delivery whose handler is at work.
pub(super) struct AtHand {
    at_work: Arc<AtWork>,
    number: u64,
}

impl AtWork {
    pub(super) fn new(room: usize) -> Arc<Self> {
        Arc::new(Self { lists: Mutex::default(), room, hashes: RandomState::new() })
    }

    /// Takes up a delivery, whose message has this id and body.
    pub(super) fn take_up(
        self: &Arc<Self>,
        id: Option<&MessageId>,
        body: &Bytes,
        delivery: Delivery,
    ) -> TakenUp {
        let mut lists = self.lists();
        // A publisher's own duplicate is shown for the first time too: it is none of our business
        // here. One that is redelivered, with the same id and the same body, is the same message.
        if let (true, Some(id)) = (delivery.redelivered, id) {
            let is_it = |r: &&mut Running| r.id.as_ref() == Some(id) && r.body == *body;
            if let Some(running) = lists.running.iter_mut().find(is_it)
                && running.delivery.is_lost()
            {
                running.delivery = delivery;
                return TakenUp::Adopted;
            }
            if self.forget_finished(&mut lists, id, body) {
                return TakenUp::Finished(delivery.into());
            }
        }
        let number = lists.next;
        lists.next += 1;
        let (id, body) = (id.cloned(), body.clone());
        lists.running.push(Running { number, id, body, delivery });
        TakenUp::New(AtHand { at_work: Arc::clone(self), number })
    }

    fn end(&self, number: u64, is_success: bool) -> Option<Delivery> {
        let mut lists = self.lists();
        let at = lists.running.iter().rposition(|running| running.number == number)?;
        let Running { id, body, delivery, .. } = lists.running.swap_remove(at);
        if let (true, Some(id)) = (is_success, id)
            && delivery.is_lost()
        {
            self.remember_finished(&mut lists, id, &body);
        }
        Some(delivery)
    }

    /// Notes that a message was handled to its end when its delivery was lost already. For those who
    /// handle one after another, so that a redelivery never finds the message at work.
    pub(super) fn ended_lost(&self, context: &Context) {
        if let Some(id) = context.message_id() {
            self.remember_finished(&mut self.lists(), id.clone(), &context.message().body);
        }
    }

    /// Whether this is the redelivery of a message that was noted so. It is forgotten then.
    pub(super) fn is_finished(&self, context: &Context) -> bool {
        let (redelivered, id) = (context.redelivered(), context.message_id());
        let body = &context.message().body;
        redelivered && id.is_some_and(|id| self.forget_finished(&mut self.lists(), id, body))
    }

    fn remember_finished(&self, lists: &mut Lists, id: MessageId, body: &Bytes) {
        lists.finished.push_back(Finished { id, body: self.hashes.hash_one(body) });
        if lists.finished.len() > self.room {
            lists.finished.pop_front();
        }
    }

    fn forget_finished(&self, lists: &mut Lists, id: &MessageId, body: &Bytes) -> bool {
        let is_it = |f: &Finished| f.id == *id && f.body == self.hashes.hash_one(body);
        let found = lists.finished.iter().position(is_it);
        found.and_then(|at| lists.finished.remove(at)).is_some()
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        // Nothing panics between two changes that belong together.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AtHand {
    /// The delivery to settle, when the handling has ended: the last one that came for the message.
    /// After a success the redelivery of a lost one needs no handling any more.
    pub(super) fn end(self, is_success: bool) -> Delivery {
        let delivery = self.at_work.end(self.number, is_success);
        delivery.expect("a delivery is taken away by its end alone, which consumes this")
    }
}

impl Drop for AtHand {
    fn drop(&mut self) {
        drop(self.at_work.end(self.number, false));
    }
}
