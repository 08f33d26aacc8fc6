//! A consumer, as the broker knows it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use super::broker::{ConnectionId, Tag};

/// A consumer, as the broker knows it.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) queue: String,
    pub(super) connection: ConnectionId,
    /// What it was given and has not looked at.
    pub(super) buffer: VecDeque<Tag>,
    /// How much it has unsettled, the buffer included.
    pub(super) held: usize,
    pub(super) prefetch: u16,
    pub(super) wake: Arc<Notify>,
}

impl Subscriber {
    pub(super) fn has_room(&self) -> bool {
        self.prefetch == 0 || self.held < usize::from(self.prefetch)
    }
}
