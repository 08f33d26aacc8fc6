//! A question.

use std::time::SystemTime;

use super::{ProcessedMessage, ProcessedStatus};

/// Which records are asked for: those that meet every condition. Without one it is all of them, a
/// hundred at a time.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use mmate_idempotency::audit::AuditQuery;
///
/// let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
/// let query = AuditQuery::new().scope("inventory/reserve-stock").done().since(an_hour_ago).limit(500);
/// # let _ = query;
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a question does nothing until a store is asked it"]
pub struct AuditQuery {
    pub(crate) scope: Option<String>,
    pub(crate) message_id: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) message_type: Option<String>,
    pub(crate) status: Option<ProcessedStatus>,
    pub(crate) since: Option<SystemTime>,
    pub(crate) until: Option<SystemTime>,
    pub(crate) after: Option<(SystemTime, String, String)>,
    pub(crate) limit: Option<u32>,
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
const DEFAULT_LIMIT: u32 = 100;

impl AuditQuery {
    /// All records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of this scope.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// With this id; in every scope, unless one is asked for too.
    pub fn message_id(mut self, id: impl Into<String>) -> Self {
        self.message_id = Some(id.into());
        self
    }

    /// Of this conversation.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// Claimed last by this service.
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// Of this message type.
    pub fn message_type(mut self, name: impl Into<String>) -> Self {
        self.message_type = Some(name.into());
        self
    }

    /// That are done.
    pub fn done(self) -> Self {
        self.status(ProcessedStatus::Done)
    }

    /// That somebody works on, or did when their process died.
    pub fn in_progress(self) -> Self {
        self.status(ProcessedStatus::InProgress)
    }

    /// Whose work stands there.
    pub fn status(mut self, status: ProcessedStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// Claimed at this time, by the database's clock, or later.
    pub fn since(mut self, time: SystemTime) -> Self {
        self.since = Some(time);
        self
    }

    /// Claimed before this time.
    pub fn until(mut self, time: SystemTime) -> Self {
        self.until = Some(time);
        self
    }

    /// That come after a message which was found before: the next page of the same question.
    pub fn after(mut self, message: &ProcessedMessage) -> Self {
        let (scope, id) = (message.scope.clone(), message.message_id.clone());
        self.after = Some((message.claimed_at, scope, id));
        self
    }

    /// At most so many; 100 by default.
    pub fn limit(mut self, records: u32) -> Self {
        self.limit = Some(records);
        self
    }

    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) fn at_most(&self) -> i64 {
        self.limit.unwrap_or(DEFAULT_LIMIT).into()
    }
}
