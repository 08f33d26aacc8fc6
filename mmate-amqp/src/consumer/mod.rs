//! Consuming a queue, over any number of connections.

mod browser;
mod incarnation;
mod keeper;
mod subscription;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::options::{BasicCancelOptions, BasicNackOptions};
use lapin::types::ShortString;
use mmate_core::health::StatusCell;
use mmate_core::transport::{Consumer, Delivery, TransportError, TransportErrorKind};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use browser::AmqpBrowser;
pub(crate) use incarnation::Incarnation;
pub(crate) use subscription::{Declared, Subscription};

use crate::failure::within;
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
    deliveries: lapin::Consumer,
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
    async fn refuse(
        &self,
        incarnation: &Incarnation,
        delivery: lapin::message::Delivery,
        bytes: u64,
    ) {
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
        let options = BasicNackOptions { requeue: false, multiple: false };
        let nack = incarnation.channel().basic_nack(delivery.delivery_tag, options);
        // If it does not arrive the message is shown again.
        let _ = within(self.subscription.answer_timeout(), nack).await;
    }

    fn delivery(
        &self,
        incarnation: &Arc<Incarnation>,
        delivery: lapin::message::Delivery,
    ) -> Delivery {
        Receipt::delivery(&self.subscription, incarnation, delivery)
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
                    let incarnation = &self.live.as_ref()?.incarnation;
                    // What was fetched on a connection that is gone will be shown again.
                    if let Some(delivery) = delivery
                        && !incarnation.is_lost()
                    {
                        if let Some(bytes) = incarnation.left_out(delivery.delivery_tag) {
                            self.refuse(incarnation, delivery, bytes).await;
                            continue;
                        }
                        return Some(Ok(self.delivery(incarnation, delivery)));
                    }
                    if let Some(live) = self.live.take() {
                        live.incarnation.ended();
                    }
                }
                else => return None,
            }
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
            incarnation.session().close_channel(incarnation.channel()).await;
        }
    }
}

/// The next delivery; `None` when the incarnation has ended.
async fn next_of(
    live: &mut Option<Live>,
    subscription: &Subscription,
) -> Option<lapin::message::Delivery> {
    let live = live.as_mut()?;
    let delivery = live.deliveries.next().await;
    match delivery {
        Some(Ok(delivery)) => Some(delivery),
        Some(Err(error)) => {
            let queue = subscription.queue();
            tracing::info!(queue, %error, "a consumer's channel failed");
            None
        }
        None => None,
    }
}

impl Live {
    /// Ends the consumption, and lets others have what was fetched and not used.
    async fn give_back(mut self, limit: Duration) {
        let channel = self.incarnation.channel();
        let cancelling = channel.basic_cancel(self.deliveries.tag(), BasicCancelOptions::default());
        if within(limit, cancelling).await.is_err() {
            // The channel is gone, and with it the broker's idea that we hold anything.
            return;
        }
        let given_back = async {
            // lapin ends the stream with the broker's answer to the cancellation.
            while let Some(Ok(delivery)) = self.deliveries.next().await {
                let options = BasicNackOptions { requeue: true, multiple: false };
                if channel.basic_nack(delivery.delivery_tag, options).await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(limit, given_back).await;
    }
}

impl fmt::Debug for AmqpConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpConsumer").field("queue", &self.subscription.queue()).finish()
    }
}
