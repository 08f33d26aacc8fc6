//! How well a service and its parts are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use crate::middleware::Middleware;
use crate::transport::Connection;

/// How well something is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "monitoring systems know these three")]
pub enum Status {
    /// It does what it is there for.
    #[default]
    Up,
    /// It does, but not as it should.
    Degraded {
        /// What is wrong, in a sentence.
        reason: String,
    },
    /// It does not. It goes on trying, unless the service has failed.
    Down {
        /// What is wrong, in a sentence.
        reason: String,
    },
}

impl Status {
    /// Working, but not as it should.
    #[must_use]
    pub fn degraded(reason: impl Into<String>) -> Self {
        Self::Degraded { reason: reason.into() }
    }

    /// Not working.
    #[must_use]
    pub fn down(reason: impl Into<String>) -> Self {
        Self::Down { reason: reason.into() }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self == Self::Up
    }

    /// Whether it does not work.
    #[must_use]
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Down { .. })
    }

    /// The worse of the two; the first, where neither is.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Up => 0,
            Self::Degraded { .. } => 1,
            Self::Down { .. } => 2,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up => f.write_str("up"),
            Self::Degraded { reason } => write!(f, "degraded: {reason}"),
            Self::Down { reason } => write!(f, "down: {reason}"),
        }
    }
}

/// Where a part of a service says how it is.
#[derive(Debug, Clone, Default)]
pub struct StatusCell(Arc<watch::Sender<Status>>);

impl StatusCell {
    /// A cell that says so at first.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self(Arc::new(watch::Sender::new(status)))
    }

    /// Says how it is from now on.
    pub fn set(&self, status: Status) {
        self.0.send_if_modified(|had| {
            let differs = *had != status;
            *had = status;
            differs
        });
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.borrow().clone()
    }
}

/// How a service is, live: cheap to clone, and still readable after the service has stopped. Had
/// with [`Running::health`](crate::Running::health).
///
/// ```
/// # use mmate_core::{HandlerError, InProcess, Service, Subscription};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # async fn greet() -> Result<(), HandlerError> { Ok(()) }
/// # let service = Service::new("greeter")
/// #     .subscribe(Subscription::per_service("greet", ["user.created.*"]).handler(greet));
/// let running = service.start(InProcess::new()).await?;
/// let report = running.health().report();
/// // What to answer to an orchestrator's probe.
/// let code = if report.status().is_down() { 503 } else { 200 };
/// let body = serde_json::to_string(&report)?;
/// assert!(code == 200 && body.starts_with(r#"{"status":"up","service":"greeter""#), "{body}");
/// # running.stop().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Health {
    service: Arc<str>,
    connection: Arc<dyn Connection>,
    subscriptions: Arc<[Subscribed]>,
}

/// What the health of a subscription is made of.
pub(crate) struct Subscribed {
    pub(crate) name: Arc<str>,
    /// Why the subscription ended, if it did.
    pub(crate) end: StatusCell,
    /// One for each part of its queue.
    pub(crate) consumers: Vec<StatusCell>,
    pub(crate) middleware: Vec<Arc<dyn Middleware>>,
}

impl Subscribed {
    fn status(&self) -> Status {
        let first = self
            .consumers
            .iter()
            .fold(self.end.status(), |all, consumer| all.and(consumer.status()));
        self.middleware.iter().fold(first, |status, middleware| status.and(middleware.status()))
    }
}

impl Health {
    pub(crate) fn new(
        service: Arc<str>,
        connection: Arc<dyn Connection>,
        subscriptions: Vec<Subscribed>,
    ) -> Self {
        Self { service, connection, subscriptions: subscriptions.into() }
    }

    /// How everything is at this moment. It asks nobody: each part knows how it is.
    #[must_use]
    pub fn report(&self) -> HealthReport {
        HealthReport {
            service: self.service.to_string(),
            connections: self.connection.status().into_iter().collect(),
            subscriptions: self
                .subscriptions
                .iter()
                .map(|part| (part.name.to_string(), part.status()))
                .collect(),
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report().fmt(f)
    }
}

/// How a service and its parts are at one moment; had with [`Health::report`]. Serialized, it has the whole service's `status`
/// (and `reason`) first, then the parts by name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthReport {
    /// The service's name.
    pub service: String,
    /// Its connections to the broker.
    pub connections: BTreeMap<String, Status>,
    /// Its subscriptions, with what their idempotency strategies say.
    pub subscriptions: BTreeMap<String, Status>,
}

impl HealthReport {
    /// That of a service without parts, which can be added to it: for a program that is no
    /// [`Service`](crate::Service), and shows its health as one that is.
    ///
    /// ```
    /// use mmate_core::HealthReport;
    /// use mmate_core::health::Status;
    /// let mut report = HealthReport::new("importer");
    /// assert!(report.status().is_up());
    /// report.connections.insert("database".to_owned(), Status::down("it does not answer"));
    /// assert_eq!(report.status(), Status::down("connection database: it does not answer"));
    /// ```
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            connections: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
        }
    }

    /// The whole service's: that of its worst part, whose name it gives.
    #[must_use]
    pub fn status(&self) -> Status {
        let named = |kind: &str, (name, status): (&String, &Status)| match status.clone() {
            Status::Up => Status::Up,
            Status::Degraded { reason } => Status::degraded(format!("{kind} {name}: {reason}")),
            Status::Down { reason } => Status::down(format!("{kind} {name}: {reason}")),
        };
        let connections = self.connections.iter().map(|part| named("connection", part));
        let subscriptions = self.subscriptions.iter().map(|part| named("subscription", part));
        connections.chain(subscriptions).fold(Status::Up, Status::and)
    }
}

impl Serialize for HealthReport {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Report<'a> {
            #[serde(flatten)]
            status: Status,
            service: &'a str,
            connections: &'a BTreeMap<String, Status>,
            subscriptions: &'a BTreeMap<String, Status>,
        }
        let Self { service, connections, subscriptions } = self;
        Report { status: self.status(), service, connections, subscriptions }.serialize(serializer)
    }
}

/// For people: a line for the service, and one for each part that is not up.
impl fmt::Display for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.status() {
            Status::Up => "up",
            Status::Degraded { .. } => "degraded",
            Status::Down { .. } => "down",
        };
        write!(f, "{} is {word}", self.service)?;
        let connections = self.connections.iter().map(|part| ("connection", part));
        let subscriptions = self.subscriptions.iter().map(|part| ("subscription", part));
        for (kind, (name, status)) in connections.chain(subscriptions) {
            if !status.is_up() {
                write!(f, "\n  {kind} {name} is {status}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(parts: [(&str, Status); 2]) -> HealthReport {
        HealthReport {
            service: "shop".to_owned(),
            connections: BTreeMap::from([("publish".to_owned(), Status::Up)]),
            subscriptions: parts.map(|(name, status)| (name.to_owned(), status)).into(),
        }
    }

    #[test]
    fn a_service_is_as_well_as_its_worst_part() {
        let parts = [("a", Status::degraded("slow")), ("b", Status::down("no queue"))];
        let report = report(parts);
        assert_eq!(report.status(), Status::down("subscription b: no queue"));
        assert_eq!(
            report.to_string(),
            "shop is down\n  subscription a is degraded: slow\n  subscription b is down: no queue"
        );
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"status":"down","reason":"subscription b: no queue","service":"shop","#.to_owned()
                + r#""connections":{"publish":{"status":"up"}},"#
                + r#""subscriptions":{"a":{"status":"degraded","reason":"slow"},"#
                + r#""b":{"status":"down","reason":"no queue"}}}"#
        );
    }

    #[test]
    fn a_service_without_trouble_is_up() {
        let report = report([("a", Status::Up), ("b", Status::Up)]);
        assert_eq!(report.status(), Status::Up);
        assert_eq!(report.to_string(), "shop is up");
    }
}
