//! What a process is told to be.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cell::{Boundary, Fault, Guard};
use super::place::Place;

/// What a process is told to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Role {
    /// The service's name.
    pub(crate) service: String,
    /// This process's name.
    pub(crate) instance: String,
    /// The broker.
    pub(crate) amqp: String,
    /// Who guards the handler.
    pub(crate) guard: Guard,
    /// Where records and effects are.
    pub(crate) place: Place,
    /// What happens to it, if anything.
    pub(crate) fault: Option<(Boundary, Fault)>,
    /// What is wrong with it, on purpose.
    pub(crate) defect: Option<Defect>,
}

/// What a cell must not pass with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "those that tests show to be found")]
pub enum Defect {
    /// A claim makes the record Done, so that a message can be lost.
    MarksFirst,
    /// A lock is of the message's id, so that two messages of one key do not exclude each other.
    LocksTheMessage,
}

/// Of the claims. Long enough that a busy machine does not lose one by itself.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// How long is waited for an answer that does not come.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(400);

/// All ids begin with this, by which a claim is known on its way to PostgreSQL.
pub(crate) const PREFIX: &str = "mx-";

/// The subscription.
pub(crate) const SUBSCRIPTION: &str = "q";

impl Role {
    pub(crate) fn topic(&self) -> String {
        format!("{}.thing", self.service)
    }

    /// Whether this happens to it.
    pub(crate) fn meets(&self, boundary: Boundary, fault: Fault) -> bool {
        self.fault == Some((boundary, fault))
    }
}
