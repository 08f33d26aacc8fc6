//! Settling deliveries.

mod copy;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mmate_core::message::wire;
use mmate_core::transport::{Changes, Delivery, PublishError, Settle, Settled, Settlement};
use tokio::time::Instant;

use self::copy::{Copy, Original};
use crate::consumer::{Incarnation, Subscription};
use crate::convert;
use crate::publisher::Parcel;
use crate::settings::Backoff;
use crate::topology::{self, Rung};

/// The right to settle one delivery, on the channel that it came from.
#[derive(Debug)]
pub(crate) struct Receipt {
    subscription: Arc<Subscription>,
    incarnation: Arc<Incarnation>,
    tag: u64,
    original: Original,
}

impl Receipt {
    /// A delivery as core sees it, with the right to settle it.
    pub(crate) fn delivery(
        subscription: &Arc<Subscription>,
        incarnation: &Arc<Incarnation>,
        delivery: lapin::message::Delivery,
    ) -> Delivery {
        let lapin::message::Delivery {
            delivery_tag: tag,
            exchange,
            routing_key,
            redelivered,
            properties,
            data,
            ..
        } = delivery;
        let body = Bytes::from(data);
        let message = convert::message(&properties, body.clone());
        let original = Original::read(exchange, routing_key, properties, body, &message.headers);
        let (subscription, incarnation) = (Arc::clone(subscription), Arc::clone(incarnation));
        incarnation.shown(tag);
        let receipt = Self { subscription, incarnation, tag, original };

        let (exchange, routing_key) =
            (receipt.original.exchange().to_owned(), receipt.original.routing_key().to_owned());
        let (failed_attempts, deferrals) =
            (receipt.original.failed_attempts(), receipt.original.deferrals());
        let queue = receipt.subscription.queue().to_owned();
        let mut shown = Delivery::new(message, queue, Box::new(receipt));
        shown.exchange = exchange;
        shown.routing_key = routing_key;
        shown.failed_attempts = failed_attempts;
        shown.deferrals = deferrals;
        shown.redelivered = redelivered;
        shown
    }

    fn ack(&self) -> Settled {
        if self.incarnation.is_lost() {
            return Settled::lost(CHANNEL_LOST);
        }
        self.incarnation.ack(self.tag);
        Settled::Yes
    }

    fn nack(&self, requeue: bool) -> Settled {
        if self.incarnation.is_lost() {
            return Settled::lost(CHANNEL_LOST);
        }
        match self.incarnation.nack(self.tag, requeue) {
            Ok(()) => Settled::Yes,
            Err(failure) => Settled::lost(failure.to_string()),
        }
    }

    /// Puts a copy where it shall be, and only then acknowledges the original.
    async fn put_by(&self, place: Place, copy: Copy) -> Settled {
        if self.incarnation.is_lost() {
            return Settled::lost(CHANNEL_LOST);
        }
        let parcel = match self.parcel(place, copy) {
            Ok(parcel) => Arc::new(parcel),
            Err(reason) => return self.without_a_copy(place, &reason).await,
        };
        let deadline = Instant::now() + self.subscription.settings().settle_timeout;
        let mut failures = 0;
        loop {
            let stored = tokio::select! {
                biased;
                () = self.incarnation.session().lost() => return Settled::lost(CHANNEL_LOST),
                stored = self.store(&parcel, place, deadline) => stored,
            };
            let Err(reason) = stored else { return self.ack() };
            if self.incarnation.is_lost() {
                return Settled::lost(CHANNEL_LOST);
            }
            failures += 1;
            let delay = AFTER_A_FAILURE.delay(failures);
            if Instant::now() + delay >= deadline {
                return self.give_back(&reason);
            }
            tracing::debug!(queue = self.subscription.queue(), reason, "putting by once more");
            tokio::time::sleep(delay).await;
        }
    }

    /// Puts a changed copy into a queue, and only then acknowledges the original. An operator waits
    /// for the answer, so a queue that does not take it is not asked again.
    async fn move_to(&self, queue: &str, changes: Changes) -> Settled {
        if self.incarnation.is_lost() {
            return Settled::lost(CHANNEL_LOST);
        }
        let copy = self.original.moved(changes, &self.incarnation.session().user());
        let parcel = copy.and_then(|copy| Parcel::copy("", queue, copy.properties, copy.body));
        let parcel = match parcel {
            Ok(parcel) => Arc::new(parcel),
            Err(reason) => return Settled::lost(reason),
        };
        let limit = self.subscription.settings().settle_timeout;
        match self.subscription.publisher().publish(parcel, limit).await {
            Ok(()) => self.ack(),
            Err(PublishError::Unroutable { .. }) => {
                Settled::lost(format!("there is no queue {queue}"))
            }
            Err(error) => Settled::lost(error.to_string()),
        }
    }

    fn parcel(&self, place: Place, copy: Copy) -> Result<Parcel, String> {
        let queue = self.subscription.queue();
        let Copy { properties, body } = copy;
        match place {
            Place::Delay(rung) => Parcel::copy("", &rung.queue_of(queue), properties, body),
            Place::DeadLetters => Parcel::copy(wire::DEAD_LETTERS, queue, properties, body),
        }
    }

    /// Tries once.
    async fn store(
        &self,
        parcel: &Arc<Parcel>,
        place: Place,
        deadline: Instant,
    ) -> Result<(), String> {
        let (subscription, session) = (&self.subscription, self.incarnation.session());
        if let Place::Delay(rung) = place {
            let ensured = subscription.delays().ensure(session, rung).await;
            ensured.map_err(|failure| failure.to_string())?;
        }
        let limit = deadline.saturating_duration_since(Instant::now());
        let published = subscription.publisher().publish(Arc::clone(parcel), limit).await;
        if let Err(PublishError::Unroutable { .. }) = &published {
            // Somebody has deleted the queue. It is made again, and the next attempt finds it.
            match place {
                Place::Delay(rung) => subscription.delays().forget(rung),
                Place::DeadLetters => {
                    let plan = subscription.plan();
                    if !plan.declare.makes_things() {
                        let queue = plan.dead_letter_queue();
                        return Err(format!("no dead-letter queue {queue} takes it"));
                    }
                    let made = topology::declare_dead_letter_queue(session, plan).await;
                    made.map_err(|error| error.to_string())?;
                }
            }
        }
        published.map_err(|error| error.to_string())
    }

    /// No copy can be made. The broker can still dead-letter the original, if its queue says how.
    async fn without_a_copy(&self, place: Place, reason: &str) -> Settled {
        let queue = self.subscription.queue();
        if let Place::DeadLetters = place
            && topology::dead_letters_by_itself(self.subscription.plan())
        {
            tracing::warn!(queue, reason, "a message is dead-lettered as it is");
            return self.nack(false);
        }
        // Shown again at once, it would be back here at once.
        tokio::time::sleep(PAUSE).await;
        self.give_back(reason)
    }

    fn give_back(&self, reason: &str) -> Settled {
        let queue = self.subscription.queue();
        tracing::warn!(queue, reason, "a message could not be put by; it goes back to its queue");
        let requeued = match self.nack(true) {
            Settled::Yes => String::new(),
            Settled::Lost { reason } => format!("; giving it back failed too: {reason}"),
        };
        Settled::lost(format!("the message could not be put by: {reason}{requeued}"))
    }
}

/// Where a copy goes.
#[derive(Debug, Clone, Copy)]
enum Place {
    Delay(Rung),
    DeadLetters,
}

#[async_trait]
impl Settle for Receipt {
    async fn settle(self: Box<Self>, settlement: Settlement) -> Settled {
        let (original, user) = (&self.original, || self.incarnation.session().user());
        match settlement {
            Settlement::Ack => self.ack(),
            Settlement::Requeue => self.nack(true),
            Settlement::Retry { after, error } => {
                let rung = Rung::of(after);
                let copy = original.retried(&error, after, rung, &user());
                self.put_by(Place::Delay(rung), copy).await
            }
            Settlement::Defer { after } => {
                let rung = Rung::of(after);
                self.put_by(Place::Delay(rung), original.deferred(after, rung, &user())).await
            }
            Settlement::DeadLetter { letter, attempts } => {
                let copy = original.dead(&letter, attempts, self.subscription.queue(), &user());
                self.put_by(Place::DeadLetters, copy).await
            }
            Settlement::Move { to, changes } => self.move_to(&to, *changes).await,
            _ => self.give_back("this transport knows no such settlement"),
        }
    }

    fn is_lost(&self) -> bool {
        self.incarnation.is_lost()
    }
}

const CHANNEL_LOST: &str = "the channel that the delivery came on is gone";

/// Between attempts to put a message by.
const AFTER_A_FAILURE: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

const PAUSE: Duration = Duration::from_secs(1);
