//! The outbox of a subscription: an argument of its handlers, and a sender while its service runs.

use std::any::TypeId;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mmate_core::health::Status;
use mmate_core::{
    BoxError, Context, FromContext, HandlerError, Middleware, Next, Outcome, Publisher, Requirement,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::metrics::Meters;
use super::{Outbox, OutboxDatabase};

/// What the clones of an outbox share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) wake: Arc<Notify>,
    pub(super) meters: OnceLock<Arc<Meters>>,
    pub(super) trouble: Arc<Trouble>,
    users: Mutex<Users>,
}

/// The subscriptions that have the outbox, and the sender that works for them.
#[derive(Default)]
struct Users {
    count: usize,
    /// Ends with the last of the outbox's clones at the latest.
    sender: Option<(DropGuard, JoinHandle<()>)>,
}

impl Shared {
    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What went wrong last.
#[derive(Default)]
pub(super) struct Trouble(Mutex<Option<(Instant, String)>>);

/// A failure is that recent for longer than the pause between two attempts.
const RECENT: Duration = Duration::from_secs(15);

impl Trouble {
    /// Tells of it in the log; who calls this makes a pause afterwards.
    pub(super) fn note(&self, what: &'static str, error: String) {
        tracing::warn!(error, "{what}; it is tried again");
        *self.last() = Some((Instant::now(), error));
    }

    fn status(&self) -> Status {
        match &*self.last() {
            Some((at, error)) if at.elapsed() < RECENT => {
                Status::degraded(format!("the outbox is not emptied: {error}"))
            }
            _ => Status::Up,
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the handling of a message wrote something into an outbox.
#[derive(Clone, Default)]
pub(crate) struct Written(Arc<AtomicBool>);

impl Written {
    pub(crate) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a stop waits for the last messages to be sent.
pub(super) const LAST_MESSAGES: Duration = Duration::from_secs(10);

pub(super) fn warn_of_unsent() {
    tracing::warn!(
        limit = ?LAST_MESSAGES,
        "messages in the outbox were not sent before the stop; they are sent later, by this service \
         or another instance"
    );
}

#[async_trait]
impl<DB: OutboxDatabase> Middleware for Outbox<DB> {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let written = context.extension::<Written>().cloned().unwrap_or_default();
        context.insert(written.clone());
        context.insert(self.clone());
        // Being outside of the strategy, this comes back after the commit.
        let result = next.run(context).await;
        context.remove::<Self>();
        if written.is_noted() {
            self.wake();
        }
        result
    }

    async fn start(&self) -> Result<(), BoxError> {
        self.migrate().await.map_err(Into::into)
    }

    async fn ready(&self, publisher: &Publisher) -> Result<(), BoxError> {
        let mut users = self.shared.users();
        users.count += 1;
        if users.sender.as_ref().is_none_or(|(_, task)| task.is_finished()) {
            let stop = CancellationToken::new();
            let sender = self.sender(publisher.clone());
            let stopped = stop.clone();
            let task = tokio::spawn(async move { sender.run(stopped).await });
            users.sender = Some((stop.drop_guard(), task));
        }
        Ok(())
    }

    async fn stop(&self) {
        let sender = {
            let mut users = self.shared.users();
            users.count = users.count.saturating_sub(1);
            if users.count > 0 { None } else { users.sender.take() }
        };
        if let Some((guard, mut task)) = sender {
            drop(guard);
            if timeout(LAST_MESSAGES, &mut task).await.is_err() {
                warn_of_unsent();
                task.abort();
            }
        }
    }

    fn status(&self) -> Status {
        self.shared.trouble.status()
    }

    fn provides(&self) -> Vec<TypeId> {
        vec![TypeId::of::<Self>()]
    }
}

impl<DB: OutboxDatabase> FromContext for Outbox<DB> {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        let outbox = context.extension::<Self>().cloned();
        outbox.ok_or_else(|| {
            HandlerError::retryable(format!("the message is handled without an {}", name::<DB>()))
        })
    }

    fn requirement() -> Option<Requirement> {
        let mend = format!(
            "give the subscription one with .middleware(Outbox::new(pool)), with a pool of {}",
            DB::NAME
        );
        Some(Requirement::new::<Self>(name::<DB>(), mend))
    }
}

/// As the user writes it.
fn name<DB>() -> String {
    let full = std::any::type_name::<DB>();
    format!("Outbox<{}>", full.rsplit("::").next().unwrap_or(full))
}
