//! The requests that wait for their replies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::RequestError;
use crate::message::Message;
use crate::transport::TransportError;

/// The requests that wait for their replies, by the id that a reply repeats. A handler that runs a
/// second time asks under the same id, so several may wait for one reply.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<Box<str>, Vec<(u64, oneshot::Sender<Received>)>>,
    last_ticket: u64,
}

type Received = Result<Message, Ended>;

/// Why no reply will come.
#[derive(Debug, Clone)]
pub(super) enum Ended {
    /// The connection was closed by us.
    Closed,
    /// The reply queue cannot be consumed any more.
    Failed(Arc<TransportError>),
}

/// A place in the table, given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    table: Arc<Table>,
    id: Box<str>,
    ticket: u64,
    reply: oneshot::Receiver<Received>,
}

impl Table {
    pub(super) fn wait(self: &Arc<Self>, id: &str) -> Waiting {
        let (send, reply) = oneshot::channel();
        let mut state = self.lock();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        state.waiting.entry(id.into()).or_default().push((ticket, send));
        Waiting { table: Arc::clone(self), id: id.into(), ticket, reply }
    }

    /// Hands a reply to whoever waits for it, and says whether anybody did.
    pub(super) fn deliver(&self, id: &str, reply: &Message) -> bool {
        let Some(waiting) = self.lock().waiting.remove(id) else { return false };
        for (_, waiting) in waiting {
            let _ = waiting.send(Ok(reply.clone()));
        }
        true
    }

    /// Ends all waiting.
    pub(super) fn end(&self, why: &Ended) {
        let all = std::mem::take(&mut self.lock().waiting);
        for (_, waiting) in all.into_values().flatten() {
            let _ = waiting.send(Err(why.clone()));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().waiting.values().map(Vec::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The reply; to be awaited again only if it was given up before.
    pub(super) async fn reply(&mut self) -> Result<Message, RequestError> {
        match (&mut self.reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(Ended::Failed(error))) => Err(RequestError::Transport(error)),
            // The sender is dropped with its table only.
            Ok(Err(Ended::Closed)) | Err(_) => Err(RequestError::Closed),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.table.lock();
        if let Some(waiting) = state.waiting.get_mut(&self.id) {
            waiting.retain(|(ticket, _)| *ticket != self.ticket);
            if waiting.is_empty() {
                state.waiting.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reply_goes_to_all_who_wait_for_its_id_and_to_no_other() {
        let table = Arc::new(Table::default());
        let (mut one, mut same) = (table.wait("1"), table.wait("1"));
        let other = table.wait("2");
        assert!(table.deliver("1", &Message::new("reply")));
        assert!(!table.deliver("1", &Message::new("again")));
        for waiting in [&mut one, &mut same] {
            assert_eq!(waiting.reply().await.unwrap().body, "reply");
        }
        assert_eq!(table.len(), 1);
        drop(other);
        assert_eq!(table.len(), 0);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing_behind_and_its_twin_waits_on() {
        let table = Arc::new(Table::default());
        let (gone, mut stays) = (table.wait("1"), table.wait("1"));
        drop(gone);
        assert_eq!(table.len(), 1);
        table.end(&Ended::Closed);
        assert!(matches!(stays.reply().await, Err(RequestError::Closed)));
        assert_eq!(table.len(), 0);
    }
}
