//! Who is to look for news.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::sign_in::Name;

/// The mailboxes of the sockets that are connected to this server, by the names of their users.
#[derive(Debug, Clone, Default)]
pub struct Mailboxes(Arc<Mutex<HashMap<Name, Vec<Arc<Mailbox>>>>>);

/// Says where there is something new for a socket: it holds no news, only where to look.
#[derive(Debug, Default)]
pub struct Mailbox {
    places: Mutex<BTreeSet<String>>,
    wake: Notify,
}

/// A mailbox as long as its socket is connected.
#[derive(Debug)]
pub struct Joined {
    mailboxes: Mailboxes,
    name: Name,
    mailbox: Arc<Mailbox>,
}

impl Mailboxes {
    /// Adds a mailbox for a socket of this user.
    #[must_use]
    pub fn join(&self, name: &Name) -> Joined {
        let mailbox = Arc::<Mailbox>::default();
        lock(&self.0).entry(name.clone()).or_default().push(Arc::clone(&mailbox));
        Joined { mailboxes: self.clone(), name: name.clone(), mailbox }
    }

    /// Tells all sockets of this user that there is something new at a place.
    pub fn tell(&self, name: &Name, place: &str) {
        for mailbox in lock(&self.0).get(name).into_iter().flatten() {
            lock(&mailbox.places).insert(place.to_owned());
            mailbox.wake.notify_one();
        }
    }

    /// How many sockets are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.0).values().map(Vec::len).sum()
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Joined {
    /// Waits until something is told, for so long at most, and takes the places.
    pub async fn take(&self, limit: Duration) -> BTreeSet<String> {
        let told = std::mem::take(&mut *lock(&self.mailbox.places));
        if !told.is_empty() {
            return told;
        }
        let _ = timeout(limit, self.mailbox.wake.notified()).await;
        std::mem::take(&mut *lock(&self.mailbox.places))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut all = lock(&self.mailboxes.0);
        let Some(connected) = all.get_mut(&self.name) else { return };
        connected.retain(|other| !Arc::ptr_eq(other, &self.mailbox));
        if connected.is_empty() {
            all.remove(&self.name);
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Mailboxes;
    use crate::sign_in::Name;

    #[tokio::test]
    async fn every_socket_of_a_user_is_told_each_place_once() {
        let name = |text: &str| Name::try_from(text.to_owned()).unwrap();
        let mailboxes = Mailboxes::default();
        let (one, two) = (mailboxes.join(&name("anna")), mailboxes.join(&name("anna")));
        let other = mailboxes.join(&name("bert"));
        for place in ["a", "b", "a"] {
            mailboxes.tell(&name("anna"), place);
        }
        for joined in [&one, &two] {
            let places = joined.take(Duration::from_secs(10)).await;
            assert_eq!(places.into_iter().collect::<Vec<_>>(), ["a", "b"]);
        }
        assert!(other.take(Duration::ZERO).await.is_empty());
        drop(one);
        assert_eq!(mailboxes.len(), 2);
        drop((two, other));
        assert!(mailboxes.is_empty());
    }
}
