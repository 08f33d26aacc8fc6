//! A channel, and its end.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::rest::Rest;
use super::session::OK;
use crate::failure::within;

/// A channel of a session. Dropped, it is closed in a task that the end of the session waits for.
///
/// lapin 4.12 closes a dropped channel too. But where the connection is being closed at the same
/// time it takes the channel's refusal to be closed twice for a failure of the connection, and
/// drops all that is yet to be written, such as acknowledgements.
pub(crate) struct Channel {
    /// Absent only while it is dropped.
    channel: Option<lapin::Channel>,
    closings: Closings,
}

/// The channels of a session that are being closed.
#[derive(Debug, Clone)]
pub(super) struct Closings {
    tasks: TaskTracker,
    runtime: Handle,
    lost: CancellationToken,
    limit: Duration,
    rest: Arc<Rest>,
}

impl Closings {
    /// Of a session that `lost` tells the end of. No channel takes longer than `limit` to close.
    pub(super) fn new(lost: CancellationToken, limit: Duration) -> Self {
        let (tasks, rest) = (TaskTracker::new(), Arc::new(Rest::new()));
        Self { tasks, runtime: Handle::current(), lost, limit, rest }
    }

    /// What is between the last acknowledgements and the end of a channel.
    pub(super) fn rest(&self) -> &Rest {
        &self.rest
    }

    pub(super) fn channel(&self, channel: lapin::Channel) -> Channel {
        Channel { channel: Some(channel), closings: self.clone() }
    }

    pub(super) fn spawn<T: Send + 'static>(
        &self,
        what: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tasks.spawn_on(what, &self.runtime)
    }

    /// Waits until every channel that was dropped so far is closed.
    pub(super) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Deref for Channel {
    type Target = lapin::Channel;

    fn deref(&self) -> &lapin::Channel {
        self.channel.as_ref().expect("a channel is there until it is dropped")
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let Some(channel) = self.channel.take().filter(|channel| channel.status().connected())
        else {
            return;
        };
        let Closings { tasks, runtime, lost, limit, rest } = self.closings.clone();
        let close = async move {
            rest.over().await;
            // Whatever it fails of, the session is about to end.
            let _ = within(limit, channel.close(OK, "".into())).await;
        };
        tasks.spawn_on(async move { lost.run_until_cancelled(close).await }, &runtime);
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
