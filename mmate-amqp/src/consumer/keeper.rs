//! What brings a consumer back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mmate_core::health::Status;
use mmate_core::transport::{Declare, QueueMode, TransportError, TransportErrorKind as Kind};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Live;
use super::incarnation::Incarnation;
use super::subscription::Subscription;
use crate::failure::Failure;
use crate::link::Session;
use crate::telemetry;

/// Makes incarnations of a consumer, each when the one before has ended, until `stop` or until one
/// cannot be made and no waiting would mend that.
pub(super) async fn keep(
    subscription: Arc<Subscription>,
    hand_over: mpsc::Sender<Result<Live, TransportError>>,
    stop: CancellationToken,
) {
    let mut keeper = Keeper { subscription, failures: 0, had_one: false };
    tokio::select! {
        () = stop.cancelled() => {}
        () = keeper.run(&hand_over) => {}
    }
}

struct Keeper {
    subscription: Arc<Subscription>,
    /// In a row.
    failures: u32,
    had_one: bool,
}

impl Keeper {
    async fn run(&mut self, hand_over: &mpsc::Sender<Result<Live, TransportError>>) {
        loop {
            let session = match self.subscription.link().session().await {
                Ok(session) => session,
                Err(Failure::Closed) => return,
                Err(failure) => {
                    let attempted = format!("consume the queue {}", self.subscription.queue());
                    let _ = hand_over.send(Err(failure.into_error(attempted))).await;
                    return;
                }
            };
            let begin = Instant::now();
            match self.incarnate(&session).await {
                Ok(live) => {
                    let incarnation = Arc::clone(&live.incarnation);
                    // Before it is handed over: who has a consumer sees it up.
                    self.subscription.status().set(Status::Up);
                    if hand_over.send(Ok(live)).await.is_err() {
                        return;
                    }
                    self.had_one = true;
                    if let Err(fatal) = self.watch_over(&incarnation).await {
                        let _ = hand_over.send(Err(fatal)).await;
                        return;
                    }
                    self.subscription.status().set(Status::down("its consumer is being restored"));
                    if !session.is_lost() {
                        telemetry::resubscribed();
                        let queue = self.subscription.queue();
                        tracing::warn!(
                            queue,
                            "the broker ended a consumer whose connection stands, as it does when \
                             a handler is slower than its consumer_timeout, or when the queue is \
                             deleted; it is brought back"
                        );
                    }
                    // One that ends as soon as it is made is as good as none.
                    if begin.elapsed() > SETTLED {
                        self.failures = 0;
                    }
                }
                Err(error) if self.is_fatal(&error) => {
                    self.subscription.status().set(Status::down(error.to_string()));
                    let _ = hand_over.send(Err(error)).await;
                    return;
                }
                Err(error) => {
                    let queue = self.subscription.queue();
                    tracing::warn!(queue, %error, "cannot consume; trying again");
                    self.subscription.status().set(Status::down(error.to_string()));
                }
            }
            if !session.is_lost() {
                self.failures += 1;
                let delay = self.subscription.settings().reconnect.delay(self.failures);
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = session.lost() => {}
                }
            }
        }
    }

    async fn incarnate(&self, session: &Arc<Session>) -> Result<Live, TransportError> {
        match self.had_one {
            true => self.subscription.declare(session).await?,
            false => self.subscription.declare_first(session).await?,
        }
        let (incarnation, deliveries) = self.subscription.consume(session).await?;
        Ok(Live::new(incarnation, deliveries))
    }

    /// Whether no waiting mends it.
    fn is_fatal(&self, error: &TransportError) -> bool {
        let plan = self.subscription.plan();
        match error.kind() {
            Kind::Mismatch | Kind::Forbidden | Kind::Configuration | Kind::Closed => true,
            Kind::NotFound => plan.declare != Declare::Create,
            // After a cut the broker may not know yet that our old connection is dead, and hold
            // our own queue for it.
            Kind::Locked => !(plan.mode == QueueMode::PerInstance && self.had_one),
            _ => false,
        }
    }

    /// Returns when the incarnation has ended.
    ///
    /// # Errors
    /// When something that it needs is gone and must not be made here.
    async fn watch_over(&self, incarnation: &Incarnation) -> Result<(), TransportError> {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check = tokio::time::interval(self.subscription.settings().topology_check);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        check.reset();
        let mut last_complaint = String::new();
        loop {
            tokio::select! {
                () = incarnation.end() => break,
                () = incarnation.session().lost() => break,
                // The stream of deliveries tells as well, but only who asks it.
                _ = look.tick() => if incarnation.is_lost() { break },
                _ = check.tick() => self.check(incarnation.session(), &mut last_complaint).await?,
            }
        }
        let queue = self.subscription.queue();
        tracing::debug!(queue, "a consumer has ended");
        Ok(())
    }

    /// Declares everything once more: exchanges and bindings go without anybody being told.
    async fn check(
        &self,
        session: &Session,
        last_complaint: &mut String,
    ) -> Result<(), TransportError> {
        let Err(error) = self.subscription.check(session).await else {
            last_complaint.clear();
            self.subscription.status().set(Status::Up);
            return Ok(());
        };
        if error.kind() == Kind::NotFound && !self.subscription.plan().declare.makes_things() {
            return Err(error);
        }
        let complaint = error.to_string();
        if complaint != *last_complaint && !session.is_lost() {
            let queue = self.subscription.queue();
            tracing::warn!(queue, %error, "the topology of a consumer is not as it should be");
            self.subscription.status().set(Status::degraded(complaint.as_str()));
            *last_complaint = complaint;
        }
        Ok(())
    }
}

/// How long an incarnation lives to count as one.
const SETTLED: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(500);
