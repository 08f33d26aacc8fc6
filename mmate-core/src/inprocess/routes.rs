//! Which queues a topic leads to.

use std::collections::HashMap;

use super::broker::State;
use crate::message::Message;
use crate::topic::TopicTable;

/// For each exchange, which queues take what; made when it is needed. Queues in it may be gone.
#[derive(Debug, Default)]
pub(super) struct Routes(HashMap<String, TopicTable<String>>);

impl Routes {
    /// A queue was made, or bound: what is known may be wrong.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

impl State {
    /// The queues that take a message, in the order of their names.
    pub(super) fn targets(
        &mut self,
        exchange: &str,
        topic: &str,
        message: &Message,
    ) -> Vec<String> {
        let table = self.routes.0.entry(exchange.to_owned()).or_insert_with(|| {
            let mut table = TopicTable::new();
            for (name, queue) in &self.queues {
                queue.bound(exchange).for_each(|key| table.insert(key, name.clone()));
            }
            table
        });
        let mut names = table.matches(topic);
        // One may be bound by several keys.
        names.dedup();
        let is_chosen = |name: &&String| {
            self.queues.get(*name).is_some_and(|queue| queue.is_chosen(topic, message))
        };
        names.into_iter().filter(is_chosen).cloned().collect()
    }
}
