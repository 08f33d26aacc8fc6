//! Publishing with confirms.
//!
//! A parcel goes into the lane of the moment, a channel in confirm mode that many publishers share.
//! When the lane breaks, what was in flight on it is sent again, with the same bytes and the same
//! id, until its time is up: a cut never tells whether the broker has stored a message.

mod confirms;
mod delays;
mod exchanges;
mod flights;
mod lane;
mod parcel;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mmate_core::transport::PublishError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use parcel::Parcel;

use self::delays::Delays;
use self::exchanges::{Exchanges, Missing};
use self::lane::{Lane, Outcome};
use crate::failure::Failure;
use crate::link::{Link, Session};
use crate::settings::{Backoff, Settings};
use crate::telemetry;
use crate::topology::Target;

/// Publishes on the publishing connection.
pub(crate) struct Publisher {
    link: Link,
    window: Arc<Semaphore>,
    /// The lane of the moment.
    lane: Mutex<Option<Lane>>,
    /// Held while another is opened, so that only one is.
    opening: tokio::sync::Mutex<()>,
    exchanges: Exchanges,
    delays: Delays,
    /// How many may publish on channels of their own at a time.
    alone: Semaphore,
}

impl Publisher {
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn new(link: Link, settings: &Settings) -> Self {
        Self {
            link,
            window: Arc::new(Semaphore::new(settings.publish_window as usize)),
            lane: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            exchanges: Exchanges::default(),
            delays: Delays::default(),
            alone: Semaphore::new(ALONE),
        }
    }

    /// Publishes, and returns when the broker has taken responsibility.
    pub(crate) async fn publish(
        &self,
        parcel: Arc<Parcel>,
        limit: Duration,
    ) -> Result<(), PublishError> {
        let begin = Instant::now();
        let mut progress = Progress::default();
        let published =
            tokio::time::timeout(limit, self.try_until_told(&parcel, &mut progress)).await;
        let result = published.unwrap_or_else(|_| {
            let reason = format!("{progress}, within {limit:?}");
            Err(PublishError::Ambiguous { destination: parcel.destination(), reason })
        });
        match &result {
            Ok(()) => telemetry::published_within(begin.elapsed()),
            Err(PublishError::Unroutable { .. }) => telemetry::publish_failed("unroutable"),
            Err(PublishError::Refused { .. }) => telemetry::publish_failed("refused"),
            Err(PublishError::Ambiguous { .. }) => telemetry::publish_failed("ambiguous"),
            _ => {}
        }
        result
    }

    pub(crate) async fn close(&self) {
        self.link.close().await;
    }

    async fn try_until_told(
        &self,
        parcel: &Arc<Parcel>,
        progress: &mut Progress,
    ) -> Result<(), PublishError> {
        progress.lacks = "there was no place among the unconfirmed ones";
        let mut permit = Some(self.permit().await?);
        let mut failures = 0;
        loop {
            progress.lacks = "the connection did not come back";
            let session = self.link.session().await.map_err(|failure| match failure {
                Failure::Closed => PublishError::Closed,
                failure => PublishError::Ambiguous {
                    destination: parcel.destination(),
                    reason: failure.to_string(),
                },
            })?;
            progress.lacks = "the broker blocked the connection";
            session.unblocked().await;
            progress.lacks = "the broker did not confirm it";
            let place = match permit.take() {
                Some(permit) => permit,
                None => self.permit().await?,
            };
            let outcome = self.attempt(&session, parcel, place).await;
            let reason = match outcome {
                Outcome::Stored => return Ok(()),
                Outcome::Unroutable if !parcel.may_not_vanish() => return Ok(()),
                Outcome::Unroutable => {
                    return Err(PublishError::Unroutable { destination: parcel.destination() });
                }
                // One that is suspected has been tried alone.
                Outcome::Refused(reason) | Outcome::Suspected(reason) => {
                    let destination = parcel.destination();
                    return Err(PublishError::Refused { destination, reason });
                }
                Outcome::Cut(reason) => reason,
            };
            tracing::debug!(destination = parcel.destination(), reason, "publishing once more");
            telemetry::publish_repeated();
            progress.last_cut = Some(reason);
            failures += 1;
            if !session.is_lost() {
                tokio::time::sleep(AFTER_A_CUT.delay(failures)).await;
            }
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, PublishError> {
        Arc::clone(&self.window).acquire_owned().await.map_err(|_| PublishError::Closed)
    }

    async fn attempt(
        &self,
        session: &Session,
        parcel: &Arc<Parcel>,
        permit: OwnedSemaphorePermit,
    ) -> Outcome {
        let exchange = parcel.exchange();
        if let Err(outcome) = self.prepare(session, parcel).await {
            return outcome;
        }
        if !self.exchanges.is_trusted(exchange) {
            return self.attempt_alone(session, parcel).await;
        }
        let lane = match self.lane(session).await {
            Ok(lane) => lane,
            Err(failure) => return Outcome::Cut(failure.to_string()),
        };
        match self.sent(session, parcel, lane.send(Arc::clone(parcel), permit).await) {
            // The broker does not say whose message it closed the channel over. Alone, each can only
            // speak for itself.
            Outcome::Suspected(_) => self.attempt_alone(session, parcel).await,
            outcome => outcome,
        }
    }

    /// What became of a parcel that was sent. If nothing took one that was to wait first, the queue
    /// that it was to wait in was deleted.
    fn sent(&self, session: &Session, parcel: &Parcel, outcome: Outcome) -> Outcome {
        if !matches!(outcome, Outcome::Unroutable) || parcel.waiting().is_none() {
            return outcome;
        }
        self.delays.forget(session, parcel);
        Outcome::Cut("the queue that it was to wait in is gone".to_owned())
    }

    /// Makes sure that there is what a parcel goes to.
    async fn prepare(&self, session: &Session, parcel: &Parcel) -> Result<(), Outcome> {
        if let Some(waiting) = parcel.waiting() {
            if let Target::Exchange(target) = &waiting.target {
                self.exchanges.ensure(session, target).await.map_err(Missing::into_outcome)?;
            }
            self.delays.ensure(session, waiting).await?;
        }
        let exchange = parcel.exchange();
        self.exchanges.ensure(session, exchange).await.map_err(Missing::into_outcome)
    }

    /// Publishes on a channel of its own, where a mistake harms nobody else.
    async fn attempt_alone(&self, session: &Session, parcel: &Arc<Parcel>) -> Outcome {
        // The semaphore is never closed.
        let _turn = self.alone.acquire().await;
        let exchange = parcel.exchange();
        self.exchanges.forget(session, exchange);
        self.delays.forget(session, parcel);
        if let Err(outcome) = self.prepare(session, parcel).await {
            return outcome;
        }
        match self.sent(session, parcel, lane::send_alone(session, parcel).await) {
            Outcome::Suspected(reason) => {
                self.exchanges.distrust(exchange);
                Outcome::Refused(reason)
            }
            outcome => {
                self.exchanges.trust(exchange);
                outcome
            }
        }
    }

    async fn lane(&self, session: &Session) -> Result<Lane, Failure> {
        if let Some(lane) = self.open_lane(session) {
            return Ok(lane);
        }
        let _opening = self.opening.lock().await;
        if let Some(lane) = self.open_lane(session) {
            return Ok(lane);
        }
        let lane = Lane::open(session).await?;
        *self.lane.lock().unwrap_or_else(PoisonError::into_inner) = Some(lane.clone());
        Ok(lane)
    }

    fn open_lane(&self, session: &Session) -> Option<Lane> {
        // Nothing panics while it is held.
        let lane = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |lane: &&Lane| lane.generation() == session.generation() && !lane.is_broken();
        lane.as_ref().filter(open).cloned()
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("free_places", &self.window.available_permits())
            .finish_non_exhaustive()
    }
}

/// How far a publish got, for the error if its time is up.
#[derive(Default)]
struct Progress {
    /// What it waits for in vain.
    lacks: &'static str,
    last_cut: Option<String>,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.lacks)?;
        match &self.last_cut {
            Some(reason) => write!(f, " after a cut ({reason})"),
            None => Ok(()),
        }
    }
}

/// Where the connection stands and only a channel was lost.
const AFTER_A_CUT: Backoff =
    Backoff { first: Duration::from_millis(20), longest: Duration::from_secs(1) };

/// Few: after a mistake of one, each of its neighbours asks for a channel.
const ALONE: usize = 16;
