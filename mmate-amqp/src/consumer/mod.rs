//! Consuming a queue, over any number of connections.

mod acks;
mod browser;
mod deliveries;
mod incarnation;
mod keeper;
mod subscription;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use lapin::types::ShortString;
use mmate_core::health::StatusCell;
use mmate_core::transport::{Consumer, Delivery, TransportError, TransportErrorKind};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use browser::AmqpBrowser;
use deliveries::Deliveries;
pub(crate) use incarnation::Incarnation;
pub(crate) use subscription::{Declared, Subscription};

use crate::settle::Receipt;
use crate::telemetry;

/// A consumer of one queue. A task of its own, the keeper, makes an incarnation of it on each new
/// connection and hands it over here.
pub(crate) struct AmqpConsumer {
    subscription: Arc<Subscription>,
    incarnations: mpsc::Receiver<Result<Live, TransportError>>,
    live: Option<Live>,
    ended: bool,
    stop_keeper: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// An incarnation and what comes from it.
struct Live {
    incarnation: Arc<Incarnation>,
    deliveries: Deliveries,
    /// Whether nothing more comes.
    ended: bool,
}

impl AmqpConsumer {
    /// Consumes; returns when the broker has agreed.
    pub(crate) async fn start(subscription: Subscription) -> Result<Self, TransportError> {
        let subscription = Arc::new(subscription);
        let stop_keeper = CancellationToken::new();
        let stop_on_drop = stop_keeper.clone().drop_guard();
        let (hand_over, incarnations) = mpsc::channel(1);
        tokio::spawn(keeper::keep(Arc::clone(&subscription), hand_over, stop_keeper.clone()));
        let mut consumer = Self {
            subscription,
            incarnations,
            live: None,
            ended: false,
            stop_keeper,
            _stop_on_drop: stop_on_drop,
        };
        // Without a first one the connection was closed meanwhile.
        let first = consumer.incarnations.recv().await;
        let closed = || TransportError::new(TransportErrorKind::Closed, "use the connection");
        consumer.live = Some(first.ok_or_else(closed)??);
        Ok(consumer)
    }

    /// Ends the making of incarnations, and returns the last one.
    fn last(&mut self) -> Option<Live> {
        self.stop_keeper.cancel();
        self.incarnations.close();
        let mut last = self.live.take();
        // One that was made meanwhile and is not used has deliveries waiting in it too.
        while let Ok(made) = self.incarnations.try_recv() {
            if let Ok(live) = made {
                last = Some(live);
            }
        }
        self.ended = true;
        last
    }

    /// Has the broker dead-letter a message that is too large to be held here.
    fn refuse(&self, incarnation: &Incarnation, delivery: &lapin::message::Delivery, bytes: u64) {
        let queue = self.subscription.queue();
        let limit = self.subscription.settings().max_body_bytes;
        let id = delivery.properties.message_id().as_ref().map(ShortString::as_str);
        tracing::error!(
            queue,
            message_id = id,
            bytes,
            limit,
            "a message is larger than may be held; the broker dead-letters it"
        );
        telemetry::oversized(queue);
        incarnation.shown(delivery.delivery_tag);
        // If it does not arrive the message is shown again.
        let _ = incarnation.nack(delivery.delivery_tag, false);
    }

    /// What a delivery is to core; none for one that nothing can be done with.
    fn take_up(&self, delivery: lapin::message::Delivery) -> Option<Delivery> {
        let incarnation = &self.live.as_ref()?.incarnation;
        // What was fetched on a connection that is gone will be shown again.
        if incarnation.is_lost() {
            return None;
        }
        if let Some(bytes) = incarnation.left_out(delivery.delivery_tag) {
            self.refuse(incarnation, &delivery, bytes);
            return None;
        }
        Some(Receipt::delivery(&self.subscription, incarnation, delivery))
    }
}

#[async_trait]
impl Consumer for AmqpConsumer {
    async fn next(&mut self) -> Option<Result<Delivery, TransportError>> {
        loop {
            tokio::select! {
                // A new incarnation means that what is left of the old one is lost.
                biased;
                incarnation = self.incarnations.recv(), if !self.ended => match incarnation {
                    Some(Ok(live)) => self.live = Some(live),
                    Some(Err(fatal)) => {
                        self.live = None;
                        return Some(Err(fatal));
                    }
                    None => self.ended = true,
                },
                delivery = next_of(&mut self.live, &self.subscription), if self.live.is_some() => {
                    if let Some(delivery) = delivery {
                        if let Some(delivery) = self.take_up(delivery) {
                            return Some(Ok(delivery));
                        }
                        if self.live.as_ref().is_some_and(|live| !live.incarnation.is_lost()) {
                            continue;
                        }
                    }
                    if let Some(live) = self.live.take() {
                        live.incarnation.ended();
                    }
                }
                else => return None,
            }
        }
    }

    fn try_next(&mut self) -> Option<Delivery> {
        let live = self.live.as_mut()?;
        match live.next(&self.subscription).now_or_never()? {
            Some(delivery) => self.take_up(delivery),
            // The next call sees it too.
            None => None,
        }
    }

    fn status(&self) -> StatusCell {
        self.subscription.status().clone()
    }

    async fn stop(&mut self) {
        if let Some(live) = self.last() {
            live.give_back(self.subscription.answer_timeout()).await;
        }
    }

    async fn leave(&mut self) {
        if let Some(Live { incarnation, .. }) = self.last() {
            // With its channel the broker takes back all that the consumer had, in its order, and
            // only then serves another one.
            incarnation.close().await;
        }
    }
}

/// The next delivery; `None` when the incarnation has ended.
async fn next_of(
    live: &mut Option<Live>,
    subscription: &Subscription,
) -> Option<lapin::message::Delivery> {
    live.as_mut()?.next(subscription).await
}

impl Live {
    fn new(incarnation: Arc<Incarnation>, deliveries: Deliveries) -> Self {
        Self { incarnation, deliveries, ended: false }
    }

    /// The next delivery; `None` when the incarnation has ended.
    async fn next(&mut self, subscription: &Subscription) -> Option<lapin::message::Delivery> {
        if self.ended {
            return None;
        }
        let delivery = self.deliveries.next().await;
        if let Some(Err(error)) = &delivery {
            let queue = subscription.queue();
            tracing::info!(queue, %error, "a consumer's channel failed");
        }
        let delivery = delivery.and_then(Result::ok);
        self.ended = delivery.is_none();
        delivery
    }

    /// Ends the consumption, and lets others have what was fetched and not used.
    async fn give_back(mut self, limit: Duration) {
        if self.deliveries.cancel(limit).await.is_err() {
            // The channel is gone, and with it the broker's idea that we hold anything.
            return;
        }
        let mut unused = Vec::new();
        let left = async {
            // lapin ends the stream with the broker's answer to the cancellation.
            while let Some(Ok(delivery)) = self.deliveries.next().await {
                unused.push(delivery.delivery_tag);
            }
        };
        let _ = tokio::time::timeout(limit, left).await;
        self.incarnation.drain(&unused);
    }
}

impl fmt::Debug for AmqpConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpConsumer").field("queue", &self.subscription.queue()).finish()
    }
}
