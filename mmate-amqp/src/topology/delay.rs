//! The queues that messages wait in.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use mmate_core::transport::{QueueMode, QueuePlan, TransportErrorKind};

use super::arguments;
use super::ladder::Rung;
use crate::failure::Failure;
use crate::link::Session;

/// The delay queues of one queue, made when they are needed first. What is known of them holds for
/// one connection only.
#[derive(Debug)]
pub(crate) struct DelayQueues {
    queue: String,
    exclusive: bool,
    /// Whether one that is missing may be made.
    makes: bool,
    known: Mutex<(u64, HashSet<Rung>)>,
}

impl DelayQueues {
    pub(crate) fn of(plan: &QueuePlan) -> Self {
        Self {
            queue: plan.name.clone(),
            exclusive: plan.mode == QueueMode::PerInstance,
            makes: plan.declare.makes_things(),
            known: Mutex::default(),
        }
    }

    /// Makes the delay queue of a rung, unless it is known to be there.
    pub(crate) async fn ensure(&self, session: &Session, rung: Rung) -> Result<(), Failure> {
        if self.known(session.generation()).1.contains(&rung) {
            return Ok(());
        }
        let (options, arguments) = if self.exclusive {
            // It ends with the connection, as its queue does.
            (QueueDeclareOptions::exclusive(), arguments::delay(&self.queue, rung.duration()))
        } else {
            let arguments = arguments::quorum_delay(&self.queue, rung.duration());
            (QueueDeclareOptions::durable(), arguments)
        };
        let name = rung.queue_of(&self.queue);
        if !self.makes {
            look(session, &name).await?;
            self.known(session.generation()).1.insert(rung);
            return Ok(());
        }
        let declared = session.aside(async |channel| {
            session.ask(channel.queue_declare(name.as_str().into(), options, arguments)).await
        });
        match declared.await {
            // An account that may not make queues is refused also those that are there.
            Err(refused) if refused.kind() == TransportErrorKind::Forbidden => {
                look(session, &name).await.map_err(|_| refused)?;
            }
            declared => drop(declared?),
        }
        self.known(session.generation()).1.insert(rung);
        Ok(())
    }

    /// A message found the delay queue missing.
    pub(crate) fn forget(&self, rung: Rung) {
        self.lock().1.remove(&rung);
    }

    fn known(&self, generation: u64) -> MutexGuard<'_, (u64, HashSet<Rung>)> {
        let mut known = self.lock();
        if known.0 != generation {
            *known = (generation, HashSet::new());
        }
        known
    }

    fn lock(&self) -> MutexGuard<'_, (u64, HashSet<Rung>)> {
        // Nothing panics while it is held.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a queue is there.
async fn look(session: &Session, name: &str) -> Result<(), Failure> {
    let (options, none) = (QueueDeclareOptions::default().passive(), FieldTable::default());
    let look = session.aside(async |channel| {
        session.ask(channel.queue_declare(name.into(), options, none)).await
    });
    look.await.map(drop)
}
