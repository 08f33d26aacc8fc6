//! What the broker pushes to a consumer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions};
use lapin::types::{FieldTable, ShortString};

use super::incarnation::Incarnation;
use crate::failure::{Failure, within};

/// The deliveries of a consumer on a channel. Dropped, it is cancelled in a task, and its channel is not closed before that.
///
/// lapin 4.12 cancels a consumer that is dropped too. But where its channel begins to be closed at that moment it takes the
/// channel's refusal for a failure of the connection, and drops that.
pub(super) struct Deliveries {
    incarnation: Arc<Incarnation>,
    /// Absent only while it is dropped.
    consumer: Option<lapin::Consumer>,
    is_cancelled: bool,
}

impl Deliveries {
    /// Consumes the queue on the incarnation's channel. Whoever gives up waiting for this leaves a consumer to lapin, see
    /// [`Session::spawn`](crate::link::Session::spawn).
    pub(super) async fn of(
        incarnation: &Arc<Incarnation>,
        queue: &str,
        tag: &str,
    ) -> Result<Self, Failure> {
        let consuming = incarnation.channel().basic_consume(
            queue.into(),
            tag.into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = Some(incarnation.session().ask(consuming).await?);
        Ok(Self { incarnation: Arc::clone(incarnation), consumer, is_cancelled: false })
    }

    /// The next one; `None` when there are no more.
    pub(super) async fn next(&mut self) -> Option<lapin::Result<lapin::message::Delivery>> {
        self.consumer.as_mut()?.next().await
    }

    /// Has the broker push no more. What was fetched before that still comes.
    pub(super) async fn cancel(&mut self, limit: Duration) -> Result<(), Failure> {
        self.is_cancelled = true;
        let tag = self.consumer.as_ref().map(lapin::Consumer::tag).unwrap_or_default();
        cancel(&self.incarnation, tag, limit).await
    }
}

async fn cancel(
    incarnation: &Incarnation,
    tag: ShortString,
    limit: Duration,
) -> Result<(), Failure> {
    let cancelling = incarnation.channel().basic_cancel(tag, BasicCancelOptions::default());
    within(limit, cancelling).await
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        if self.is_cancelled || self.incarnation.is_lost() {
            return;
        }
        let incarnation = Arc::clone(&self.incarnation);
        self.incarnation.session().spawn(async move {
            let session = incarnation.session();
            let cancelled = cancel(&incarnation, consumer.tag(), session.answer_timeout());
            tokio::select! {
                // If it fails, so does the channel.
                _ = cancelled => {}
                () = session.lost() => {}
            }
            drop(consumer);
        });
    }
}
