//! Which queues are there that messages wait in.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mmate_core::transport::TransportErrorKind;

use super::lane::Outcome;
use super::parcel::Parcel;
use crate::failure::Failure;
use crate::link::Session;
use crate::topology::Waiting;

/// What messages wait in that are published for later, made when it is needed first. What is known
/// of it holds in one session.
#[derive(Debug, Default)]
pub(super) struct Delays {
    known: Mutex<(u64, HashSet<Waiting>)>,
    /// One makes something at a time; the others find it.
    making: tokio::sync::Mutex<()>,
}

impl Delays {
    /// Makes sure that a message can wait, and that the queue it is for is there.
    ///
    /// # Errors
    /// What becomes of the message otherwise.
    pub(super) async fn ensure(&self, session: &Session, waiting: &Waiting) -> Result<(), Outcome> {
        // Each time: at the end of its delay nobody could be told any more.
        waiting.look_for_target(session).await.map_err(|failure| match failure.kind() {
            TransportErrorKind::NotFound => Outcome::Unroutable,
            TransportErrorKind::Locked => Outcome::Refused(ENDS.to_owned()),
            _ => outcome(&failure),
        })?;
        if self.known(session).contains(waiting) {
            return Ok(());
        }
        let _making = self.making.lock().await;
        if self.known(session).contains(waiting) {
            return Ok(());
        }
        waiting.declare(session).await.map_err(|failure| outcome(&failure))?;
        self.known(session).insert(waiting.clone());
        Ok(())
    }

    /// What a message was to wait in may have gone.
    pub(super) fn forget(&self, session: &Session, parcel: &Parcel) {
        if let Some(waiting) = parcel.waiting() {
            self.known(session).remove(waiting);
        }
    }

    fn known(&self, session: &Session) -> Known<'_> {
        // Nothing panics while it is held.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != session.generation() {
            *known = (session.generation(), HashSet::new());
        }
        Known(known)
    }
}

fn outcome(failure: &Failure) -> Outcome {
    match failure.is_of_the_channel() {
        true => Outcome::Refused(failure.to_string()),
        false => Outcome::Cut(failure.to_string()),
    }
}

/// A delay queue is not the connection's own, and would know no way for its messages.
const ENDS: &str = "the queue ends with its connection, so nothing can be delayed for it";

struct Known<'a>(MutexGuard<'a, (u64, HashSet<Waiting>)>);

impl std::ops::Deref for Known<'_> {
    type Target = HashSet<Waiting>;
    fn deref(&self) -> &HashSet<Waiting> {
        &self.0.1
    }
}

impl std::ops::DerefMut for Known<'_> {
    fn deref_mut(&mut self) -> &mut HashSet<Waiting> {
        &mut self.0.1
    }
}
