//! A consumer as it is written with lapin alone, for what people write by hand.

use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions};
use lapin::types::FieldTable;

use crate::Result;
use crate::cases::PREFETCH;
use crate::queue::Queue;

/// Deliveries, and the channel that they are acknowledged on. Clones share them.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) channel: Channel,
    deliveries: lapin::Consumer,
}

impl Source {
    /// Of a queue, so many at a time.
    pub(crate) async fn of(queue: &Queue, prefetch: u16) -> Result<Self> {
        let channel = queue.channel(prefetch).await?;
        let (name, options) = (queue.name.as_str(), BasicConsumeOptions::default());
        // The broker makes a tag.
        let consuming =
            channel.basic_consume(name.into(), "".into(), options, FieldTable::default());
        let deliveries = consuming.await?;
        Ok(Self { channel, deliveries })
    }

    pub(crate) async fn next(&mut self) -> Result<Delivery> {
        Ok(self.deliveries.next().await.ok_or("the consumer ended")??)
    }

    /// Ends it. All must be acknowledged by then.
    pub(crate) async fn end(self) -> Result<()> {
        let tag = self.deliveries.tag();
        self.channel.basic_cancel(tag, BasicCancelOptions::default()).await?;
        self.channel.close(200, "done".into()).await?;
        Ok(())
    }
}

/// Consumes a queue. Clones of its channel acknowledge.
pub(crate) struct Consumer {
    pub(crate) queue: Queue,
    pub(crate) channel: Channel,
    source: Source,
}

impl Consumer {
    pub(crate) async fn of(queue: Queue) -> Result<Self> {
        Self::with_prefetch(queue, PREFETCH).await
    }

    pub(crate) async fn with_prefetch(queue: Queue, prefetch: u16) -> Result<Self> {
        let source = Source::of(&queue, prefetch).await?;
        Ok(Self { queue, channel: source.channel.clone(), source })
    }

    /// What others may take from as well.
    pub(crate) fn source(&self) -> Source {
        self.source.clone()
    }

    pub(crate) async fn next(&mut self) -> Result<Delivery> {
        self.source.next().await
    }

    /// Ends it. All must be acknowledged by then.
    pub(crate) async fn used_up(self) -> Result<()> {
        self.source.end().await?;
        self.queue.used_up().await
    }
}

/// Has an acknowledgement written, and does not wait until it is: lapin has it at the first poll.
pub(crate) fn ack(channel: &Channel, tag: u64, multiple: bool) -> Result<()> {
    channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never().transpose()?;
    Ok(())
}
