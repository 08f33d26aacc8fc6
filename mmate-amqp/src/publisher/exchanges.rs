//! Which exchanges are there.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mmate_core::transport::TransportErrorKind;

use super::lane::Outcome;
use crate::link::Session;
use crate::topology;

/// The exchanges that are known to be there, in one session. Publishing to a missing one makes the
/// broker close the channel, with everything that is in flight on it; so it is looked for first.
/// Those that it has closed a channel over are not trusted until a message went through.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    known: Mutex<(u64, HashSet<String>)>,
    distrusted: Mutex<HashSet<String>>,
    /// One asks at a time; the others find its answer.
    asking: tokio::sync::Mutex<()>,
}

impl Exchanges {
    /// Makes sure that an exchange is there: mmate's own are made when they are not, so that a
    /// publisher can come before any subscriber.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) async fn ensure(&self, session: &Session, name: &str) -> Result<(), Missing> {
        if self.is_known(session, name) {
            return Ok(());
        }
        let _asking = self.asking.lock().await;
        if self.is_known(session, name) {
            return Ok(());
        }
        match topology::look_for_exchange(session, name).await {
            Ok(()) => {}
            Err(failure) if failure.kind() != TransportErrorKind::NotFound => {
                return Err(Missing { is_certain: false, reason: failure.to_string() });
            }
            Err(_) if topology::EXCHANGES.contains(&name) => {
                topology::declare_exchanges(session).await.map_err(|error| Missing {
                    is_certain: error.kind() != TransportErrorKind::Unreachable,
                    reason: error.to_string(),
                })?;
            }
            Err(failure) => {
                return Err(Missing { is_certain: true, reason: failure.to_string() });
            }
        }
        self.known(session.generation()).insert(name.to_owned());
        Ok(())
    }

    /// Whether a message for it may go where others are in flight.
    pub(super) fn is_trusted(&self, name: &str) -> bool {
        !self.distrusted().contains(name)
    }

    /// The broker closed a channel over a message for it, and over no other.
    pub(super) fn distrust(&self, name: &str) {
        self.distrusted().insert(name.to_owned());
    }

    /// A message for it did no harm.
    pub(super) fn trust(&self, name: &str) {
        self.distrusted().remove(name);
    }

    fn distrusted(&self) -> MutexGuard<'_, HashSet<String>> {
        // Nothing panics while it is held.
        self.distrusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The exchange may have gone.
    pub(super) fn forget(&self, session: &Session, name: &str) {
        self.known(session.generation()).remove(name);
    }

    fn is_known(&self, session: &Session, name: &str) -> bool {
        // The default exchange is always there.
        name.is_empty() || self.known(session.generation()).contains(name)
    }

    fn known(&self, generation: u64) -> Known<'_> {
        // Nothing panics while it is held.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != generation {
            *known = (generation, HashSet::new());
        }
        Known(known)
    }
}

/// The exchange is not there, or nobody knows.
pub(super) struct Missing {
    is_certain: bool,
    reason: String,
}

impl Missing {
    /// What that means for a parcel.
    pub(super) fn into_outcome(self) -> Outcome {
        match self.is_certain {
            true => Outcome::Refused(self.reason),
            false => Outcome::Cut(self.reason),
        }
    }
}

struct Known<'a>(MutexGuard<'a, (u64, HashSet<String>)>);

impl std::ops::Deref for Known<'_> {
    type Target = HashSet<String>;
    fn deref(&self) -> &HashSet<String> {
        &self.0.1
    }
}

impl std::ops::DerefMut for Known<'_> {
    fn deref_mut(&mut self) -> &mut HashSet<String> {
        &mut self.0.1
    }
}
