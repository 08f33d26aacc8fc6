//! What all incarnations of a consumer have in common.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::options::BasicQosOptions;
use mmate_core::health::{Status, StatusCell};
use mmate_core::transport::{QueuePlan, TransportError, TransportErrorKind};

use super::deliveries::Deliveries;
use super::incarnation::Incarnation;
use crate::failure::Failure;
use crate::link::{Link, Session};
use crate::publisher::Publisher;
use crate::settings::Settings;
use crate::topology::{self, DelayQueues};

/// What all incarnations of a consumer have in common.
pub(crate) struct Subscription {
    plan: QueuePlan,
    prefetch: u16,
    tag: String,
    link: Arc<Link>,
    publisher: Arc<Publisher>,
    settings: Arc<Settings>,
    declared: Arc<Declared>,
    delays: DelayQueues,
    status: StatusCell,
}

/// Which queues were declared in which session, so that it is not done twice in a row.
#[derive(Debug, Default)]
pub(crate) struct Declared(Mutex<HashMap<String, u64>>);

impl Declared {
    pub(crate) fn remember(&self, queue: &str, session: &Session) {
        let mut declared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        declared.insert(queue.to_owned(), session.generation());
    }

    /// Whether it was; and forgets it.
    fn take(&self, queue: &str, session: &Session) -> bool {
        let mut declared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        declared.remove(queue) == Some(session.generation())
    }
}

impl Subscription {
    pub(crate) fn new(
        plan: &QueuePlan,
        prefetch: u16,
        service: &str,
        link: &Arc<Link>,
        publisher: &Arc<Publisher>,
        settings: &Arc<Settings>,
        declared: &Arc<Declared>,
    ) -> Self {
        Self {
            plan: plan.clone(),
            // AMQP takes 0 for no bound at all.
            prefetch: prefetch.max(1),
            tag: tag(service),
            link: Arc::clone(link),
            publisher: Arc::clone(publisher),
            settings: Arc::clone(settings),
            declared: Arc::clone(declared),
            delays: DelayQueues::of(plan),
            status: StatusCell::new(Status::down("it is being set up")),
        }
    }

    pub(crate) fn plan(&self) -> &QueuePlan {
        &self.plan
    }

    pub(super) fn prefetch(&self) -> u16 {
        self.prefetch
    }

    pub(crate) fn queue(&self) -> &str {
        &self.plan.name
    }

    pub(crate) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    pub(crate) fn delays(&self) -> &DelayQueues {
        &self.delays
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the consumer says how it is.
    pub(super) fn status(&self) -> &StatusCell {
        &self.status
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn answer_timeout(&self) -> Duration {
        self.settings.answer_timeout
    }

    /// Makes what the consumer needs, unless that was done in this session a moment ago.
    pub(super) async fn declare_first(&self, session: &Session) -> Result<(), TransportError> {
        match self.declared.take(&self.plan.name, session) {
            true => Ok(()),
            false => self.declare(session).await,
        }
    }

    pub(super) async fn declare(&self, session: &Session) -> Result<(), TransportError> {
        topology::declare(session, &self.plan, self.settings.delivery_limit).await
    }

    /// Makes again what somebody may have deleted.
    pub(super) async fn check(&self, session: &Session) -> Result<(), TransportError> {
        topology::check(session, &self.plan, self.settings.delivery_limit).await
    }

    /// Consumes on a channel of its own.
    pub(super) async fn consume(
        &self,
        session: &Arc<Session>,
    ) -> Result<(Arc<Incarnation>, Deliveries), TransportError> {
        // One that the broker would drop is taken whole.
        let is_safe = topology::dead_letters_by_itself(&self.plan);
        let largest = is_safe.then_some(self.settings.max_body_bytes);
        let (queue, tag, prefetch) = (self.plan.name.clone(), self.tag.clone(), self.prefetch);
        let on = Arc::clone(session);
        // To its end, also if nobody waits for it any more.
        let consuming = session.spawn(async move {
            let channel = on.channel().await?;
            on.limit_bodies(&channel, largest);
            on.ask(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
            let incarnation = Incarnation::new(Arc::clone(&on), channel, prefetch);
            let deliveries = Deliveries::of(&incarnation, &queue, &tag).await?;
            Ok((incarnation, deliveries))
        });
        let consumed = consuming.await.unwrap_or(Err(Failure::Lost));
        consumed.map_err(|failure: Failure| {
            let kind = failure.kind();
            let error = failure.into_error(format!("consume the queue {}", self.plan.name));
            match kind {
                TransportErrorKind::Forbidden => {
                    error.hint("consuming needs the read permission for the queue")
                }
                TransportErrorKind::Locked => error.hint("another consumer has it for itself"),
                _ => error,
            }
        })
    }
}

/// Consumer tags are for people who look at the broker: they name the service.
fn tag(service: &str) -> String {
    let mut tag = service.to_owned();
    let end = (0..=200.min(tag.len())).rev().find(|end| tag.is_char_boundary(*end));
    tag.truncate(end.unwrap_or_default());
    tag
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("plan", &self.plan)
            .field("prefetch", &self.prefetch)
            .finish_non_exhaustive()
    }
}
