//! A consumer on one channel.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::link::{Channel, Session};

/// A consumer on one channel of one connection. Its deliveries can be settled on that channel and
/// nowhere else: the numbers of another one mean other deliveries.
#[derive(Debug)]
pub(crate) struct Incarnation {
    session: Arc<Session>,
    channel: Channel,
    ended: CancellationToken,
}

impl Incarnation {
    pub(super) fn new(session: Arc<Session>, channel: Channel) -> Self {
        Self { session, channel, ended: CancellationToken::new() }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether nothing can be settled on it any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.session.is_lost() || !self.channel.status().connected()
    }

    /// How many bytes the body of a delivery had, if they were too many to be held.
    pub(super) fn left_out(&self, tag: u64) -> Option<u64> {
        self.session.left_out(&self.channel, tag)
    }

    /// Its stream of deliveries came to an end.
    pub(super) fn ended(&self) {
        self.ended.cancel();
    }

    /// Ready when its stream of deliveries came to an end.
    pub(super) async fn end(&self) {
        self.ended.cancelled().await;
    }
}
