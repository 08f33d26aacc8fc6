//! What waits in the lanes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::context::Context;
use crate::message::MessageId;
use crate::transport::Delivery;

/// A message that waits for its turn.
pub(super) struct Item {
    pub(super) delivery: Delivery,
    pub(super) context: Context,
}

/// The lanes by key. A key is in it exactly while a task serves its lane.
pub(super) struct Table {
    prefetch: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lanes: HashMap<String, VecDeque<Item>>,
    waiting: usize,
    /// What was begun and let go of, since its connection was gone: id, attempt, deferrals.
    begun: VecDeque<(MessageId, u32, u32)>,
}

impl Table {
    pub(super) fn new(prefetch: usize) -> Self {
        Self { prefetch, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message to its lane. Whether the lane is new, and needs somebody who serves it.
    pub(super) fn push(&self, key: &str, item: Item) -> bool {
        let mut state = self.lock();
        // No more than the prefetch is alive, so something is not.
        if state.waiting >= self.prefetch {
            state.drop_lost();
        }
        state.waiting += 1;
        if let Some(lane) = state.lanes.get_mut(key) {
            lane.push_back(item);
            return false;
        }
        state.lanes.insert(key.to_owned(), VecDeque::from([item]));
        true
    }

    /// The next message of a lane. Without one the lane is gone.
    pub(super) fn next(&self, key: &str) -> Option<Item> {
        let mut state = self.lock();
        let item = state.lanes.get_mut(key)?.pop_front();
        match item {
            Some(_) => state.waiting -= 1,
            None => drop(state.lanes.remove(key)),
        }
        item
    }

    /// Notes how far a message came whose delivery is lost. A message without an id begins anew.
    pub(super) fn remember(&self, context: &Context) {
        let Some(id) = context.message_id() else { return };
        if context.attempt() == 1 && context.deferrals() == 0 {
            return;
        }
        let mut state = self.lock();
        state.begun.retain(|(had, ..)| had != id);
        if state.begun.len() >= self.prefetch {
            state.begun.pop_front();
        }
        state.begun.push_back((id.clone(), context.attempt(), context.deferrals()));
    }

    /// How far a message came before its delivery was lost.
    pub(super) fn recall(&self, context: &Context) -> Option<(u32, u32)> {
        let id = context.message_id()?;
        let mut state = self.lock();
        let at = state.begun.iter().position(|(had, ..)| had == id)?;
        state.begun.remove(at).map(|(_, attempt, deferrals)| (attempt, deferrals))
    }
}

impl State {
    fn drop_lost(&mut self) {
        self.waiting = 0;
        for lane in self.lanes.values_mut() {
            lane.retain(|item| !item.delivery.is_lost());
            self.waiting += lane.len();
        }
    }
}
